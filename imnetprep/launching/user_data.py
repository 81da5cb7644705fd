"""User data: the script that a machine runs as root when it boots, as text.

It installs the wheel from the bucket, runs the supervisor in a session, and turns the machine off
when that is over, however it came. No secret is in it: the role of the machine signs what it asks.
"""

import shlex
from urllib.parse import quote

from imnetprep.launching.folder import LAUNCHES
from imnetprep.launching.orders import Orders
from imnetprep.s3.address import parse_s3_address

LOG = "/var/log/imnetprep.log"
_FOLDER = "/var/lib/imnetprep-install"
PYTHON = f"{_FOLDER}/venv/bin/python"
LARGEST_BYTES = 16384  # EC2 takes no more, before base64

_SCRIPT = r"""#!/bin/sh
# imnetprep launch: what this machine does, once. Whatever ends this script turns the machine off.
set -u
umask 077
trap 'shutdown -h now' EXIT
trap 'exit 143' HUP INT TERM
exec </dev/null >>@LOG@ 2>&1
minutes=$(((@DEADLINE@ - $(date +%s)) / 60))
[ "$minutes" -gt 0 ] || exit 1
shutdown -h "+$minutes"

run=@RUN@ group=@GROUP@ address=@ADDRESS@ region=@REGION@
folder=@FOLDER@
wheel=@WHEEL@ sha256=@SHA256@
export HOME=/root DEBIAN_FRONTEND=noninteractive
export AWS_DEFAULT_REGION="$region"@ENDPOINT@
# A busy machine is told its credentials late; after one second by default there would be none.
export AWS_METADATA_SERVICE_TIMEOUT=5 AWS_METADATA_SERVICE_NUM_ATTEMPTS=5
metadata="${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}"
scaling="${AWS_ENDPOINT_URL_AUTO_SCALING:-${AWS_ENDPOINT_URL:-@SCALING@}}"

# Secrets reach curl by its standard input: other users could read a command line.
told() {
	printf 'header = "x-aws-ec2-metadata-token: %s"\n' "$token" |
		curl --config - --noproxy '*' -sSf --retry 3 "$metadata/latest/meta-data/$1"
}
signed() { # signed SERVICE CURL-OPTION…: a request with the credentials of the machine's role
	service=$1
	shift
	token=$(curl --noproxy '*' -sSf --retry 3 -X PUT \
		-H 'x-aws-ec2-metadata-token-ttl-seconds: 300' "$metadata/latest/api/token") || return
	role=$(told iam/security-credentials/) || return
	keys=$(told "iam/security-credentials/$role") || return
	{
		printf 'user = "%s:%s"\n' "$(value AccessKeyId)" "$(value SecretAccessKey)"
		session=$(value Token)
		[ -z "$session" ] || printf 'header = "x-amz-security-token: %s"\n' "$session"
	} | curl --config - -sSf --retry 5 --aws-sigv4 "aws:amz:$region:$service" "$@"
}
value() {
	printf '%s\n' "$keys" | sed -n 's/.*"'"$1"'" *: *"\([^"]*\)".*/\1/p'
}
in_bucket() { # in_bucket NAME CURL-OPTION…: an object beside the orders
	name=$1
	shift
	signed s3 -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' "$@" "$folder/$name"
}
end_for_good() {
	echo "Error: $1"
	printf '{"code": 1, "reason": "%s", "at": %s}' "$1" "$(date +%s)" >/run/imnetprep-done
	in_bucket log.txt -T @LOG@
	in_bucket "done" -T /run/imnetprep-done
	sleep @KEEP@
	words="Action=UpdateAutoScalingGroup&Version=2011-01-01&AutoScalingGroupName=$group"
	signed autoscaling -o /dev/null "$scaling/" \
		-d "$words&MinSize=0&MaxSize=0&DesiredCapacity=0"
	exit 1
}
packages() {
	apt-get -o DPkg::Lock::Timeout=120 update
	apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"
}
install() {
	in_bucket "$wheel" -o "$work/$wheel" || return
	echo "$sha256  $work/$wheel" | sha256sum -c - || return
	command -v screen || packages screen # without it there is tmux, or no window
	python3 -c 'import ensurepip' || packages python3-venv || return
	[ -x "$work/venv/bin/pip" ] || python3 -m venv --system-site-packages "$work/venv" || return
	"$work/venv/bin/python" -m pip install --disable-pip-version-check --no-input --quiet \
		"$work/${wheel}[train,crc64]"
}

for unit in apt-daily apt-daily-upgrade unattended-upgrades; do
	systemctl mask --now "$unit.timer" "$unit.service" # an update would take the driver away
done
# The image makes one disk of the local ones, a moment after the boot.
for _ in $(seq 60); do
	set -- /dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_*
	if [ ! -e "$1" ] || mountpoint -q /opt/dlami/nvme; then break; fi
	sleep 1
done
data=/var/lib/imnetprep
if mountpoint -q /opt/dlami/nvme &&
	[ "$(df --block-size=1 --output=avail /opt/dlami/nvme | tail -n 1)" -ge @NEEDED@ ]; then
	data=/opt/dlami/nvme/imnetprep # else the volume is as large as the data need
fi
work=@INSTALLED@
if ! { mkdir -p "$data" "$work" && cd "$work"; }; then end_for_good "the disk takes no folder"; fi

for try in 1 2 3; do
	if install; then break; fi
	[ "$try" -lt 3 ] || end_for_good "the installation failed three times: see log.txt"
	sleep 5
done
"$work/venv/bin/python" -m imnetprep.launching.supervisor session "$address" "$run" "$data"
"""


def user_data(orders: Orders) -> str:
    """The script for the machine of `orders`: what `launch --print user-data` prints."""
    folder = parse_s3_address(orders.address) / LAUNCHES / orders.run
    suffix = ".cn" if orders.region.startswith("cn-") else ""
    domain = f"{orders.region}.amazonaws.com{suffix}"
    store = (orders.endpoint_url or f"https://s3.{domain}").rstrip("/")
    endpoint = f" AWS_ENDPOINT_URL_S3={shlex.quote(store)}" if orders.endpoint_url else ""
    words = {
        "LOG": LOG,
        "INSTALLED": _FOLDER,
        "DEADLINE": str(int(orders.deadline)),
        "RUN": shlex.quote(orders.run),
        "GROUP": shlex.quote(orders.group),
        "ADDRESS": shlex.quote(orders.address),
        "REGION": shlex.quote(orders.region),
        "FOLDER": shlex.quote(f"{store}/{folder.bucket}/{quote(folder.key)}"),
        "WHEEL": shlex.quote(orders.wheel),
        "SHA256": shlex.quote(orders.wheel_sha256),
        "ENDPOINT": endpoint,
        "SCALING": f"https://autoscaling.{domain}",
        "NEEDED": str(orders.needed_bytes),
        "KEEP": str(60 * orders.keep_minutes),
    }
    script = _SCRIPT
    for name, word in words.items():
        script = script.replace(f"@{name}@", word)
    return script
