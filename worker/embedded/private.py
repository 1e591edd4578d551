"""What keeps the other users of this machine out: closed folders, an account for Postgres, a folder for its socket.

Changes nothing outside the data folder. Knows no server.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from worker.private import UMASK
from worker.words import reason, say

#: What root's Postgres runs as, which itself refuses to be root.
ACCOUNT = "sightline-db"
#: By the part of the name before a dot: what only we make in a data folder, and what others may call something so, too.
SERVERS, FOLDERS = {"postgres", "valkey", "servers", "up"}, {"index", "models", "logs"}
#: What the demo leaves in one: folders with this file in them, and its drawings by their digest.
DEMO_MARKER, DRAWINGS = ".sightline-demo", "scenes-" + 12 * "[0-9a-f]"
#: Bytes of a socket's path, its closing zero not counted (unix(7)).
SOCKET_PATH_BYTES = 107
SOCKET_PREFIX = "sightline-"
#: The bits of /proc/self/status for two capabilities (capabilities(7)).
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2


@dataclass(frozen=True)
class Account:
    """Who a server runs as. before: what to put before its command for that."""

    uid: int
    gid: int
    before: tuple[str, ...] = ()

    def give(self, folder: Path) -> None:
        """The folder and all in it to this account, as where root has copied it there."""
        if self.before:
            for path in (folder, *folder.rglob("*")):
                if path.lstat().st_uid != self.uid:
                    os.chown(path, self.uid, self.gid, follow_symlinks=False)


def close_data_dir(folder: Path) -> None:
    """Make it, and close it to others. One in which other things lie, too, stays as it is; what is ours in it is
    closed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    entries = {path: path.name.partition(".")[0] for path in folder.iterdir() if not _of_the_demo(path)}
    to_close = [path for path, name in entries.items() if name in SERVERS]
    if set(entries.values()) <= SERVERS | FOLDERS:
        to_close.append(folder)
    for path in to_close:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & UMASK and not path.is_symlink():
            path.chmod(mode & ~UMASK)


def account_for(program: Path) -> Account:
    """This process's own, or where that is root ACCOUNT, which is made where there is none.

    As that account a server reaches its folder and its program although the folders above are root's own: it is given
    the one capability for that and no other. Raises RuntimeError where an account or a program for this lacks.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise RuntimeError(_as_root(say("the program `setpriv` (util-linux) is not installed")))
    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        entry = _made_account()
    before = [setpriv, f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--no-new-privs"]
    held = _capabilities()
    # The weaker one reads and passes folders; it does not start a program that only root may start.
    if held & 1 << CAP_DAC_READ_SEARCH and program.stat().st_mode & stat.S_IXOTH:
        before += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    elif held & 1 << CAP_DAC_OVERRIDE:
        before += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return Account(entry.pw_uid, entry.pw_gid, (*before, "--"))


def socket_folder(folder: Path, name: str, account: Account) -> Path:
    """Where a socket of that name can be: `folder`, or where its path is too long a new closed one of a short name.

    Nor may it have what servers and drivers read as something else, a comma above all. Raises RuntimeError where no
    folder for temporary files is short enough.
    """
    if _fits(folder / name):
        return folder
    # Not XDG_RUNTIME_DIR, which goes with the session of a user; a server may outlive that.
    for base in (Path(tempfile.gettempdir()), Path("/tmp")):
        if os.access(base, os.W_OK | os.X_OK) and _fits(base.resolve() / (SOCKET_PREFIX + "x" * 8) / name):
            made = Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX, dir=base)).resolve()
            os.chown(made, account.uid, account.gid)
            return made
    raise RuntimeError("no folder with a path that is short enough for a socket: set TMPDIR to one")


def remove_socket_folder(made: Path, folder: Path) -> None:
    """Remove what socket_folder made for this folder, and never another one."""
    if made != folder and made.name.startswith(SOCKET_PREFIX):
        shutil.rmtree(made, ignore_errors=True)


def _of_the_demo(path: Path) -> bool:
    return fnmatchcase(path.name, DRAWINGS) or (path / DEMO_MARKER).exists()


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES and str(path).isprintable() and "," not in str(path)


def _made_account() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        return pwd.getpwnam(ACCOUNT)
    except OSError as exc:
        raise RuntimeError(_as_root(f"useradd: {reason(exc)}")) from exc
    except KeyError as exc:
        raise RuntimeError(_as_root(done.stderr.strip())) from exc


def _as_root(why: str) -> str:
    return say(
        "Postgres does not run as root, and the account {account} for it cannot be used: {why}. Run `sightline up` as "
        "another user",
        account=ACCOUNT,
        why=why,
    )


def _capabilities() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
