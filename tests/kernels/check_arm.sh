#!/usr/bin/env bash
# Builds the kernels for 64-bit ARM and runs their tests under qemu's emulation: `make check-arm`.
#
# The tests are those of every other machine, run by Debian's Python for ARM with PyPI's wheels for ARM. All of it goes
# into build/arm; nothing is installed on this machine. What this shows is that the results are right; emulation says
# nothing about speed.
#
#   tests/kernels/check_arm.sh VENV [pytest's arguments]
set -euo pipefail
venv=$(realpath "$1")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
arm=$PWD/build/arm
root=$arm/root

needed=(aarch64-linux-gnu-g++ qemu-aarch64 apt-get dpkg-deb)
for program in "${needed[@]}"; do
    if ! command -v "$program" >/dev/null; then
        echo "make check-arm needs $program, which is not here: it runs on Debian and its kin, after" \
            "apt-get install g++-aarch64-linux-gnu qemu-user" >&2
        exit 1
    fi
done

# Debian's packages for ARM, fetched and unpacked beside this machine's own.
if ! [ -e "$arm/unpacked" ]; then
    echo "fetching Python for ARM into build/arm (once; 30 MB)" >&2
    rm -rf "$arm"
    mkdir -p "$root" "$arm"/apt/{lists,cache/archives}/partial
    touch "$arm/apt/status"
    apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=
        -o Dir::State::Lists="$arm/apt/lists" -o Dir::Cache="$arm/apt/cache" -o Dir::State::status="$arm/apt/status"
        -o Debug::NoLocking=1)
    "${apt[@]}" update
    "${apt[@]}" install --yes --no-install-recommends --download-only python3 libpython3-dev libstdc++6
    for package in "$arm"/apt/cache/archives/*.deb; do dpkg-deb --extract "$package" "$root"; done
    touch "$arm/unpacked"
fi

# A Python that starts under emulation, and finds itself again where a test starts another.
python=$arm/python
cat >"$python" <<END
#!/bin/sh
export PYTHONHOME="$root/usr" PYTHONPATH="$arm/packages:$PWD/src\${PYTHONPATH:+:\$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
exec qemu-aarch64 -L "$root" -0 "$python" "$root/usr/bin/python3" "\$@"
END
chmod +x "$python"
version=$("$python" -c 'import sys; print("{}.{}".format(*sys.version_info))')

if ! [ requirements.lock -ot "$arm/packages" ]; then
    echo "fetching wheels for ARM into build/arm (once; 40 MB)" >&2
    rm -rf "$arm/packages"
    "$venv/bin/python" -m pip install --quiet --quiet --target "$arm/packages" --only-binary :all: \
        --python-version "$version" --implementation cp --platform manylinux2014_aarch64 \
        --platform manylinux_2_17_aarch64 --platform manylinux_2_28_aarch64 --constraint requirements.lock \
        charset-normalizer click fsspec hypothesis numpy pooch pydantic pyppmd pytest pytest-xdist rich safetensors threadpoolctl tomli-w
    touch "$arm/packages"
fi

"$venv/bin/cmake" -G Ninja -S . -B "$arm/kernels" --log-level=NOTICE -Wno-unused-cli \
    -DCMAKE_MAKE_PROGRAM="$venv/bin/ninja" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_CROSSCOMPILING_EMULATOR="qemu-aarch64;-L;$root" \
    -DPython_EXECUTABLE="$python" -DPython_INCLUDE_DIR="$root/usr/include/python$version" \
    -DCMAKE_CXX_FLAGS="-isystem \"$root/usr/include\"" \
    -Dnanobind_ROOT="$("$venv/bin/python" -m nanobind --cmake_dir)" -DCHARLOOM_OUTPUT="$arm/modules" >/dev/null
MAKEFLAGS='' "$venv/bin/cmake" --build "$arm/kernels" -- --quiet

# Emulated arithmetic is a hundred times slower, so the largest cases are left out; and qemu cannot fork a process that
# has threads.
left_out="(large_layers and 700) or ten_thousand or (text_is_the_same and 100) or (processes_end and fork)"
KERNELS_FOLDER="$arm/modules" exec "$python" -m pytest -p no:cacheprovider --numprocesses 2 --dist worksteal \
    -k "not ($left_out)" tests/kernels "$@"
