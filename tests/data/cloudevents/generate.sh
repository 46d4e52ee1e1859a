#!/bin/sh
# Writes the events of events.json as the CloudEvents SDKs do, each in a file of its own beside this script.
# Needs node 20, Python 3.11, Go 1.24 and Java 17 with Maven, and the package registries. Nothing is left behind.
set -eu
cd "$(dirname "$0")"
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cp -R javascript java python go "$build"

(cd "$build/javascript" && npm install --silent --no-audit --no-fund)
node "$build/javascript/events.js" < events.json > javascript.json

python3 -m venv "$build/venv"
"$build/venv/bin/pip" install --quiet -r python/requirements.txt
"$build/venv/bin/python" python/events.py < events.json > python.json

(cd "$build/go" && go build -o events .)
"$build/go/events" < events.json > go.json

version=$(sed -n 's/.*<cloudevents>\(.*\)<.*/\1/p' java/pom.xml)
(cd "$build/java" && mvn --quiet --batch-mode compile dependency:copy-dependencies)
java -cp "$build/java/target/classes:$build/java/target/dependency/*" Events "$version" < events.json > java.json
