# Shortcuts for what the scripts do; nothing needs them.

_list:
    @just --justfile .justfile --list

# Format, lints and documentation, as CI checks them
check:
    .ci/run fmt clippy doc

# All tests, or a part: just test sdk -k recovery
test *part:
    .ci/test {{ part }}

# Simulations, with their own options
sim *options:
    .ci/sim run {{ options }}

# The figures of a three-node cluster
bench *options:
    tests/measure {{ options }}

# Orbweb, as `cargo build --profile dist` makes it, beside its peers, which tests/benches/peers/setup installs
peers *options:
    cargo bench --bench peers -- {{ options }}

# A cluster on free ports, for trying out
cluster nodes="3":
    cargo run --release -- demo --nodes {{ nodes }}

# The image, built and used
docker:
    .ci/image

# Everything that a change must pass
ci *stages:
    .ci/run {{ stages }}
