#!/usr/bin/env python3
"""Runs what a unit starts, as nearly as the unit would, on a machine where systemd does not run.

    as-unit.py UNIT [--set NAME=VALUE]... [-- COMMAND...]

Taken from the unit: user, umask, environment, limits, directories, credentials, no capability, no new privileges, a file
system that is read-only but for the unit's own directories, a /tmp of its own, no homes, /proc without the others' processes,
the filter of system calls and address families, no memory that is writable and executable. Each message to the
service manager is a line `notify: ...` on stdout; the watchdog is enforced. SIGTERM, SIGINT and SIGHUP are handed on. The exit code is
the program's. Needs root, python3-seccomp, and systemd's own systemd-analyze for the names of groups of calls.

A setting of the unit that this program neither applies nor knowingly leaves out is an error, so that the unit cannot gain one that
is never tried.
"""

import ctypes
import grp
import os
import pwd
import resource
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import seccomp

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18,
)
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 24, 38, 65
CAPABILITIES_MAX = 64
# What this program does nothing about, each for its reason.
LEFT_OUT = {
    "Description", "Documentation", "Wants", "After", "StartLimitIntervalSec", "StartLimitBurst", "WantedBy",  # no manager
    "ExecReload", "TimeoutStartSec", "TimeoutStopSec", "KillMode", "Restart", "RestartSec", "RestartPreventExitStatus",
    "OOMPolicy", "NotifyAccess", "ConditionPathExists", "Type",
    "AmbientCapabilities", "PrivateMounts", "LockPersonality", "KeyringMode", "RemoveIPC",  # nothing to see in a test
    "DevicePolicy", "PrivateDevices", "ProtectControlGroups",  # control groups are the manager's
    # Follow from the lack of capabilities, from the read-only file system, or from the filter of calls.
    "ProtectClock", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables",
    "RestrictRealtime", "RestrictSUIDSGID", "SystemCallArchitectures", "RestrictNamespaces",
}
libc = ctypes.CDLL(None, use_errno=True)


def call(name, *args):
    if getattr(libc, name)(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{args}: {os.strerror(number)}")


def mount(source, target, kind=None, flags=0, options=None):
    encoded = [text.encode() if text else None for text in (source, str(target), kind)]
    call("mount", *encoded, ctypes.c_ulong(flags), options.encode() if options else None)


class Unit:
    """The settings of a unit file: each name with its values in order; an empty value forgets those before it."""

    def __init__(self, path):
        self.values, self.used = {}, set(LEFT_OUT)
        for line in Path(path).read_text().splitlines():
            line = line.strip()
            if not line or line[0] in "#;[":
                continue
            name, _, value = line.partition("=")
            self.values.setdefault(name, []).append(value)

    def all(self, name):
        self.used.add(name)
        values = []
        for value in self.values.get(name, []):
            values = [*values, value] if value else []
        return values

    def one(self, name, default=None):
        values = self.all(name)
        return values[-1] if values else default

    def is_set(self, name):
        return self.one(name, "no") in ("yes", "true", "strict", "1")

    def check_all_used(self):
        unknown = sorted(set(self.values) - self.used)
        if unknown:
            sys.exit(f"as-unit.py: the unit has settings that this program neither applies nor leaves out: {unknown}")


def calls_of(name):
    """The system calls of a group, or the call itself."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True).stdout
    names = [line.strip() for line in listed.splitlines()[1:]]
    return set().union(*(calls_of(word) for word in names if word and not word.startswith("#")), set())


def allowed_calls(lines):
    """The first line says whether what follows is allowed or forbidden; here it is always allowed."""
    allowed = set()
    for line in lines:
        names = set().union(*(calls_of(word) for word in line.lstrip("~").split()))
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed | calls_of("@default")


def filter_of(unit):
    wanted = allowed_calls(unit.all("SystemCallFilter"))
    families = unit.one("RestrictAddressFamilies", "").split()
    assert unit.one("SystemCallErrorNumber") == "EPERM"
    rules = seccomp.SyscallFilter(seccomp.ERRNO(1))
    for name in sorted(wanted - {"unshare", "setns", "socket"}):
        try:
            rules.add_rule(seccomp.ALLOW, name)
        except (RuntimeError, ValueError):
            continue  # a call of another architecture
    for family in families:
        rules.add_rule(seccomp.ALLOW, "socket", seccomp.Arg(0, seccomp.EQ, getattr(socket, family)))
    return rules


def seconds(text):
    for ending, factor in (("min", 60), ("ms", 0.001), ("s", 1)):
        if text.endswith(ending):
            return float(text.removesuffix(ending)) * factor
    return float(text)


def make_folders(unit, user, group):
    """The unit's own directories, as the manager makes them, and the environment that names them."""
    environment, writable = {}, []
    for kind, parent, owned in (("State", "/var/lib", True), ("Runtime", "/run", True), ("Configuration", "/etc", False)):
        name = unit.one(f"{kind}Directory")
        mode = int(unit.one(f"{kind}DirectoryMode", "0755"), 8)
        if not name:
            continue
        folder = Path(parent) / name
        folder.mkdir(exist_ok=True)
        if owned:
            os.chown(folder, user.pw_uid, group.gr_gid)
            folder.chmod(mode)
            writable.append(folder)
        environment[f"{kind.upper()}_DIRECTORY"] = str(folder)
    return environment, writable


def make_credentials(unit, user):
    """A folder with those credentials that are in the store; what is not there is left out, as the manager does it."""
    wanted = [line.split(":") for line in unit.all("LoadCredential")]
    if not wanted:
        return {}
    folder = Path(tempfile.mkdtemp(prefix="credentials-", dir="/run"))
    for name, source in wanted:
        for store in ("/etc/credstore", "/run/credstore"):
            if (Path(store) / source).is_file():
                shutil.copyfile(Path(store) / source, folder / name)
                os.chown(folder / name, user.pw_uid, -1)
                (folder / name).chmod(0o440)
                break
    os.chown(folder, user.pw_uid, -1)
    folder.chmod(0o500)
    return {"CREDENTIALS_DIRECTORY": str(folder)}


def enclose(unit, writable):
    """A file system of its own: nothing can be written but the unit's directories and its own /tmp."""
    call("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    assert unit.one("ProtectSystem") == "strict"
    for folder in writable:
        mount(str(folder), folder, None, MS_BIND)
    own = [str(folder) for folder in writable]
    if unit.is_set("PrivateTmp"):
        for folder in ("/tmp", "/var/tmp"):
            mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=256m")
            own.append(folder)
    if unit.is_set("ProtectHome"):
        for folder in ("/home", "/root", "/run/user"):
            if Path(folder).is_dir():
                mount("tmpfs", folder, "tmpfs", MS_RDONLY, "mode=0000")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4].encode().decode("unicode_escape")
        if place in own or place.startswith(("/proc", "/dev", "/sys")):
            continue
        if call_quietly("mount", None, place.encode(), None, ctypes.c_ulong(MS_REMOUNT | MS_BIND | MS_RDONLY), None):
            print(f"as-unit: {place} stays writable", flush=True)
    options = {("invisible", "pid"): "hidepid=invisible,subset=pid"}[unit.one("ProtectProc"), unit.one("ProcSubset")]
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)


def call_quietly(name, *args):
    return getattr(libc, name)(*args)


def restrict(unit, user, group, rules):
    assert unit.values.get("CapabilityBoundingSet") == [""], "expected no capability at all"
    unit.used.add("CapabilityBoundingSet")
    for name in ("NOFILE", "CORE"):
        # Not above what this process has itself.
        _, highest = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
        limit = int(unit.one(f"Limit{name}"))
        limit = limit if highest == resource.RLIM_INFINITY else min(limit, highest)
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    for capability in range(CAPABILITIES_MAX):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.initgroups(user.pw_name, group.gr_gid)
    os.setgid(group.gr_gid)
    os.setuid(user.pw_uid)
    if unit.is_set("NoNewPrivileges"):
        call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if unit.is_set("MemoryDenyWriteExecute") and libc.prctl(PR_SET_MDWE, 1, 0, 0, 0):
        print("as-unit: this kernel knows no MDWE", flush=True)
    os.umask(int(unit.one("UMask"), 8))
    os.chdir(unit.one("WorkingDirectory"))
    rules.load()


def environment_of(unit, user, more):
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
    }
    for line in unit.all("Environment"):
        environment.update(word.split("=", 1) for word in shlex.split(line))
    return {**environment, **more}


def start(unit, command, settings, notify):
    """The process of the unit, in its bounds; its id."""
    user, group = pwd.getpwnam(unit.one("User")), grp.getgrnam(unit.one("Group"))
    folders, writable = make_folders(unit, user, group)
    credentials = make_credentials(unit, user)
    watchdog = {"WATCHDOG_USEC": str(int(seconds(unit.one("WatchdogSec")) * 1e6))}
    rules = filter_of(unit)
    environment = environment_of(unit, user, {**folders, **credentials, **watchdog, "NOTIFY_SOCKET": notify, **settings})
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid, credentials.get("CREDENTIALS_DIRECTORY")
    try:
        enclose(unit, writable)
        restrict(unit, user, group, rules)
        unit.check_all_used()
        os.execvpe(command[0], command, environment)
    except BaseException as error:  # noqa: BLE001: whatever it is, the child must not go on as if it were the parent
        os.write(2, f"as-unit.py: {error}\n".encode())
        os._exit(254)


def watch(pid, receiver, watchdog):
    """Hands messages on until the process ends. Without a sign of life in time it is ended."""
    last = None
    while True:
        readable, _, _ = select.select([receiver], [], [], 0.2)
        if readable:
            lines = receiver.recv(4096).decode().split("\n")
            if "WATCHDOG=1" in lines or "READY=1" in lines:
                last = time.monotonic()
            print(f"notify: {' '.join(line for line in lines if line)}", flush=True)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if last and time.monotonic() - last > watchdog:
            print("notify: the watchdog has had no sign of life", flush=True)
            os.kill(pid, signal.SIGABRT)
            last = None


def main():
    arguments = sys.argv[1:]
    path, settings, command = arguments.pop(0), {}, None
    while arguments:
        word = arguments.pop(0)
        if word == "--set":
            name, _, value = arguments.pop(0).partition("=")
            settings[name] = value
        elif word == "--":
            command, arguments = arguments, []
        else:
            sys.exit(f"as-unit.py: what is {word}?")
    unit = Unit(path)
    command = command or shlex.split(unit.one("ExecStart"))
    unit.used.add("ExecStart")
    folder = tempfile.mkdtemp(prefix="as-unit-", dir="/run")
    os.chmod(folder, 0o711)
    place = f"{folder}/notify"
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(place)
    os.chmod(place, 0o666)
    credentials = None
    try:
        pid, credentials = start(unit, command, settings, place)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: os.kill(pid, number))
        code = watch(pid, receiver, seconds(unit.one("WatchdogSec")))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if credentials:
            shutil.rmtree(credentials, ignore_errors=True)
    print(f"ended: {code}", flush=True)
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
