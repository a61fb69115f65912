#!/bin/sh
# Install what tests need beside Python's packages, on Debian and Ubuntu, as root; elsewhere say
# what is missing. Nothing that the service itself needs is among it.
missing=
for command in chromium prometheus; do
	command -v "$command" > /dev/null || missing="$missing $command"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
	echo "installing$missing"
	export DEBIAN_FRONTEND=noninteractive
	# A list that is too old names files that are gone.
	# shellcheck disable=SC2086
	{ apt-get -qq install -y --no-install-recommends $missing ||
		{ apt-get -qq update && apt-get -qq install -y --no-install-recommends $missing; }
	} > /dev/null 2>&1 && exit 0
fi
echo "not here, so that tests that need them are skipped:$missing"
