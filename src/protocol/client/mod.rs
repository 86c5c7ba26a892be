//! Frames of the Centrifuge client protocol v2.
