#!/bin/sh
# Checks the package with tsc, outside the source tree; says so and succeeds where npm is missing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if ! command -v npm >/dev/null 2>&1; then
    echo "SKIPPED: guest-js was not checked, because npm is missing" >&2
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here"/package.json "$here"/tsconfig.json "$here"/*.ts "$work"
cd "$work"
npm install --no-audit --no-fund --silent
npx --no-install tsc --noEmit
echo "guest-js: tsc is content"
