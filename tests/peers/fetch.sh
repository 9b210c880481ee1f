#!/bin/bash
# Fetches programs that the tests are run against, without installing them: an installed nsd, Kamailio, OpenSMTPD or Exim would be started as
# a service and would hold port 53, 5060 or 25 (and take the place of the machine's own MTA), and baresip would bring thirty libraries for
# sound and pictures. The Debian package and those of its libraries that it needs here and that are not installed are unpacked into the
# directory given, as they would lie below /: usr/sbin/nsd, usr/lib/... For each program a small script in bin/ finds those libraries.
#
#   tests/peers/fetch.sh target/peers
#
# What is in tests/peers/requirements.txt comes from PyPI and is unpacked into python/, with its hash compared.
set -eu -o pipefail

into=$1
here=$(cd "$(dirname "$0")" && pwd)
# program=package, in usr/sbin or usr/bin of that package
programs="nsd=nsd nsd-checkconf=nsd nsd-checkzone=nsd kamailio=kamailio baresip=baresip-core tshark=tshark
    smtpd=opensmtpd smtpctl=opensmtpd exim4=exim4-daemon-light swaks=swaks"
# Packages that they need here and do not depend on: swaks has TLS from Net::SSLeay.
more="libnet-ssleay-perl"
# package=pattern: which of the libraries that it depends on are needed here; of another package, all
only="baresip-core=^lib(re|rem|gsm)[0-9]"

ready() {
    local pair
    for pair in $programs; do [ -x "$into/bin/${pair%=*}" ] || return 1; done
    cmp -s "$here/requirements.txt" "$into/python/requirements.txt"
}
ready && exit 0

mkdir -p "$into/bin" "$into/debs"
into=$(cd "$into" && pwd)
cd "$into/debs"

fetch() {
    local try
    ls "$1"_*.deb >/dev/null 2>&1 && return
    echo "fetching $1 (unpacked below $into, not installed)"
    for try in 1 2; do
        apt-get download -q "$1" 2>/dev/null && return
        # A fresh machine has no package lists yet.
        if [ "$(id -u)" = 0 ]; then apt-get update -q; else sudo apt-get update -q; fi
    done
    echo "cannot fetch the Debian package $1" >&2
    return 1
}

installed() { case "$(dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null || true)" in ii*) ;; *) return 1 ;; esac; }

libraries_of() {
    local pair wanted=.
    for pair in $only; do [ "${pair%%=*}" != "$1" ] || wanted=${pair#*=}; done
    apt-cache depends --no-recommends --no-suggests "$1" | sed -n 's/^ *|\{0,1\}Depends: \(lib[^ ]*\)$/\1/p' | { grep -E "$wanted" || true; }
}

# A package, and what it depends on by name and is not there; and what that depends on: tshark's and Exim's bring some that not every
# Debian has.
fetch_with_libraries() {
    local library
    fetch "$1"
    for library in $(libraries_of "$1"); do
        installed "$library" || ls "${library}"_*.deb >/dev/null 2>&1 || fetch_with_libraries "$library"
    done
}

for package in $(for pair in $programs; do echo "${pair#*=}"; done | sort -u) $more; do fetch_with_libraries "$package"; done
for deb in ./*.deb; do dpkg-deb -x "$deb" "$into"; done

perl=$(find "$into/usr" -type d -regex '.*/perl5\(/5\.[0-9]+\)?' | sort | paste -sd: -)
is_script() { head -c 2 "$1" | grep -qa '^#!'; }
libraries=$(find "$into/usr" -path '*/lib/*' -name '*.so*' -printf '%h\n' | sort -u | paste -sd: -)
for pair in $programs; do
    name=${pair%=*}
    real=$(find "$into/usr" -path "*bin/$name" -type f -print -quit)
    [ -n "$real" ] || { echo "the package ${pair#*=} has no program $name" >&2; exit 1; }
    missing=
    if ! is_script "$real"; then
        missing=$(LD_LIBRARY_PATH=$libraries ldd "$real" | sed -n 's/^\s*\(.*\) => not found/\1/p')
    fi
    [ -z "$missing" ] || { echo "$name lacks libraries: $missing" >&2; exit 1; }
    {
        echo '#!/bin/sh'
        [ -z "$libraries" ] || echo "export LD_LIBRARY_PATH=$libraries"
        ! is_script "$real" || echo "export PERL5LIB=$perl"
        echo "exec $real \"\$@\""
    } >"$into/bin/$name"
    chmod +x "$into/bin/$name"
done

rm -rf "$into/python" "$into/wheels"
python3 -m pip download -q --disable-pip-version-check --no-deps --require-hashes -r "$here/requirements.txt" -d "$into/wheels"
for wheel in "$into"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$into/python"; done
cp "$here/requirements.txt" "$into/python/"
echo "peers are in $into/bin: $(ls "$into/bin" | paste -sd' ' -)"
