"""What decoders of their own cost: photos a second through the whole service, without and with them, in turns.

    python -m benchmarks.sandbox [--photos N] [--rounds N] [--megapixels N]
    python -m benchmarks.sandbox --formats [--megapixels N]

JSON goes to stdout on one line. Every round starts a worker for each setting of SIGHTLINE_SANDBOX and adds as many new
photos as a list; a slow minute of the machine so meets both. The model is the smallest there is, so that decoding is
as large a part as it can be. `share` is the median of the rounds' own ratios, 1 where nothing is lost.

With --formats: what one photo of each kind takes of a decoder that is started for it, at the size that models need and
at its own; a decoder's limits are set by that (worker/sandbox/port.py).
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pillow_jxl  # noqa: F401  # Pillow writes JPEG XL by it
import psutil
from PIL import Image

from benchmarks.photos import copies, write_drawn
from benchmarks.report import machine, step, tell, workplace
from benchmarks.stack import add
from worker.encoder.choice import REFERENCE
from worker.sandbox.port import CPU_S, Sandbox
from worker.sandbox.wire import Limits
from worker.settings import Settings
from worker.stack import Stack

MODES = ("off", "auto")
#: Photos that go before the clock runs: whatever is loaded with the first ones is there.
WARM = 24
#: Different pictures; further files are copies of them.
PICTURES = 12
#: Input side of the usual models; and one at which nothing is reduced.
SIDES = (224, 10_000)
#: How a picture is written: its mode and what Pillow is told. Noise, at about the half byte a pixel that 50 MB allow to
#: 100 megapixels where a format lets one choose.
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpeg": ("JPEG", "RGB", {"quality": 75}),
    "jpeg, progressive": ("JPEG", "RGB", {"quality": 60, "progressive": True, "subsampling": 0}),
    "jpeg of printers, progressive": ("JPEG", "CMYK", {"quality": 50, "progressive": True}),
    "png": ("PNG", "RGBA", {"compress_level": 1}),
    "png, grey and see-through": ("PNG", "LA", {"compress_level": 1}),
    "png, 16 bits": ("PNG", "I;16", {"compress_level": 1}),
    "gif": ("GIF", "P", {}),
    "tiff": ("TIFF", "RGB", {}),
    "tiff of numbers": ("TIFF", "F", {}),
    "webp": ("WEBP", "RGBA", {"quality": 60, "method": 0}),
    "webp, lossless": ("WEBP", "RGB", {"lossless": True, "method": 0, "quality": 0}),
    "avif": ("AVIF", "RGBA", {"quality": 80, "speed": 10, "subsampling": "4:4:4"}),
    "heif": ("HEIF", "RGBA", {"quality": 55, "enc_params": {"preset": "ultrafast"}}),
    "jpeg xl": ("JXL", "RGB", {"quality": 85, "effort": 4}),
    "jpeg xl, lossless": ("JXL", "RGBA", {"lossless": True, "effort": 1}),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sandbox", description="Measure what decoders cost.")
    parser.add_argument("--photos", type=int, default=160, help="photos of a round (160)")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--megapixels", type=float, default=8.0, help="of each photo (8)")
    parser.add_argument("--formats", action="store_true", help="what one photo of each kind takes, instead")
    options = parser.parse_args(arguments)
    if options.formats:
        kinds = _kinds(options.megapixels)
        tell({"megapixels": options.megapixels, "kinds": kinds, "machine": machine("pillow", "pillow-heif")})
        return
    with workplace("sandbox") as folder:
        rounds = _rounds(folder, options.photos, options.rounds, options.megapixels)
    told = {mode: [one[mode] for one in rounds] for mode in MODES}
    shares = [one["auto"]["photos_s"] / one["off"]["photos_s"] for one in rounds]
    tell(
        {
            "photos": options.photos,
            "megapixels": options.megapixels,
            "photos_s": {mode: statistics.median(one["photos_s"] for one in told[mode]) for mode in MODES},
            "cpu_ms_per_photo": {mode: statistics.median(one["cpu_ms"] for one in told[mode]) for mode in MODES},
            "share": round(statistics.median(shares), 3),
            "rounds": rounds,
            "machine": machine("pillow", "simplejpeg"),
        }
    )


def _rounds(folder: Path, photos: int, rounds: int, megapixels: float) -> list[dict[str, Any]]:
    with step("photos"):
        pictures = write_drawn(folder / "pictures", megapixels, PICTURES)
        fresh = copies(pictures, folder / "photos")
    settings = Settings(
        data_dir=folder / "service", photo_roots=(folder,), encoder="packaged/efficientnet-lite0", backend=REFERENCE
    )
    found: list[dict[str, Any]] = []
    with Stack(settings, log_dir=folder / "logs", port=0) as stack:
        for number in range(rounds):
            # Each of them begins every other round.
            turn = MODES if number % 2 == 0 else MODES[::-1]
            found.append({mode: _round(stack, mode, list(islice(fresh, WARM + photos))) for mode in turn})
    return found


def _round(stack: Stack, mode: str, paths: Sequence[str]) -> dict[str, Any]:
    with step(f"SIGHTLINE_SANDBOX={mode}"):
        worker = stack.start("worker", settings=stack.settings.model_copy(update={"sandbox": mode}))
        stack.wait_ready()
        with stack.client() as client:
            add(client, ((path, 50.0, 14.0) for path in paths[:WARM]))
            before, began = _cpu_s(worker.pid), time.perf_counter()
            add(client, ((path, 50.0, 14.0) for path in paths[WARM:]))
            seconds, spent = time.perf_counter() - began, _cpu_s(worker.pid) - before
            level = client.stats().sandbox
        worker.ask_to_stop()
        worker.wait()
        stack.processes.remove(worker)
    count = len(paths) - WARM
    return {
        "photos_s": round(count / seconds, 2),
        "cpu_ms": round(1000 * spent / count, 2),
        "level": level,
    }


def _kinds(megapixels: float) -> dict[str, dict[str, Any]]:
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    height = round(megapixels * 1e6 / width)
    noise = np.random.default_rng(7).integers(0, 90, (height, width, 3), np.uint8)
    drawn = Image.fromarray(noise + np.linspace(0, 160, width).astype(np.uint8)[None, :, None])
    found = {}
    for name, (kind, mode, options) in KINDS.items():
        with step(name):
            picture = drawn.convert("L").convert("I;16") if mode == "I;16" else drawn.convert(mode)
            written = io.BytesIO()
            # Turned, which takes a copy.
            exif = Image.Exif()
            exif[0x0112] = 6
            picture.save(written, kind, exif=exif.tobytes(), **options)
            del picture
            found[name] = _taken(written.getvalue(), width * height)
    return found


def _taken(content: bytes, pixels: int) -> dict[str, Any]:
    """The most of both sides. memory: of its addresses, which is what its limit counts, without the file."""
    memory, seconds = 0.0, 0.0
    for side in SIDES:
        sandbox = Sandbox(Limits(16_000_000_000, 10 * CPU_S, 4 * pixels), most=1)
        try:
            sandbox.level  # noqa: B018  # it is loaded
            (pid,) = sandbox.pids
            began, before = _memory(pid, "VmSize"), _cpu_s(pid)
            sandbox.decode(content, side=side, max_megapixels=pixels / 1e6)
            memory = max(memory, _memory(pid, "VmPeak") - began - len(content))
            seconds = max(seconds, _cpu_s(pid) - before)
        finally:
            sandbox.close()
    return {
        "file_mb": round(len(content) / 1e6, 1),
        "bytes_per_pixel": round(memory / pixels, 1),
        "cpu_s": round(seconds, 2),
        "cpu_s_of_100_megapixels": round(seconds * 1e8 / pixels, 1),
    }


def _memory(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(name)).split()[1])


def _cpu_s(pid: int) -> float:
    """Of a process and what it has started."""
    first = psutil.Process(pid)
    times = [member.cpu_times() for member in (first, *first.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


if __name__ == "__main__":
    main()
