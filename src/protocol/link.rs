//! Control frames of a link, before and beside the frames of the cores.
