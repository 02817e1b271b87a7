# What the browser tests need beyond Python: Chromium, and the scripts that the pages load from a CDN.
# Where something cannot be installed, the tests that need it are skipped and say so; with CI=true this fails.

here=$(dirname "$0")
npm_folder=.venv/browser

missing() {
    echo "$1" >&2
    [ "$CI" = true ] && exit 1
    exit 0
}

# Debian's own packages, where this user may install them.
apt_install() {
    command -v apt-get > /dev/null || return 1
    if [ "$(id -u)" = 0 ]; then as_root=; elif sudo -n true 2> /dev/null; then as_root="sudo -n"; else return 1; fi
    $as_root apt-get update -q && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -q -y --no-install-recommends "$@"
}

.venv/bin/python "$here/find_browser.py" > /dev/null \
    || apt_install chromium \
    || .venv/bin/python -m playwright install chromium \
    || missing "No Chromium was found, and none could be installed: the book's browser tests will be skipped."

if ! cmp -s "$here/package-lock.json" "$npm_folder/installed.json"; then
    command -v npm > /dev/null || apt_install npm \
        || missing "npm was not found, and could not be installed: the book's browser tests will be skipped."
    mkdir -p "$npm_folder"
    cp "$here/package.json" "$here/package-lock.json" "$npm_folder"
    (cd "$npm_folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) \
        || missing "npm could not fetch the pages' scripts: the book's browser tests will be skipped."
    cp "$here/package-lock.json" "$npm_folder/installed.json"
fi
