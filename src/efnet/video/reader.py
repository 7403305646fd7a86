"""A source read ahead in a thread, so that decoding and the network work at the same time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from efnet.video.source import Frame, Source


class Reader(Iterator[Frame]):
    """Frames of a source, a few of them decoded ahead; memory does not grow with the video.

    A file waits for its reader. A live source does not: when it is ahead, its oldest frames are dropped.

    Args:
        source: closed when the reader is.
        ahead: frames kept ready.

    Attributes:
        dropped: frames of a live source that came too fast.
    """

    def __init__(self, source: Source, ahead: int = 4) -> None:
        self.source = source
        self.dropped = 0
        self._ahead = ahead
        self._frames: deque[Frame] = deque()
        self._change = threading.Condition()
        self._finished = False
        self._stopped = False
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="efnet-video", daemon=True)
        self._thread.start()

    def __next__(self) -> Frame:
        """The next frame; waits for it.

        Raises:
            InputError: what the source raised, after the frames before it.
        """
        with self._change:
            while not self._frames and not self._finished:
                self._change.wait(0.2)  # not for ever: Ctrl-C is heard between two waits
            if self._frames:
                self._change.notify_all()
                return self._frames.popleft()
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault
        raise StopIteration

    def close(self) -> None:
        """Stop reading and close the source."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        # A live source that hangs is left to its thread, which ends with the process.
        self._thread.join(timeout=10)
        if not self._thread.is_alive():
            self.source.close()

    def _read(self) -> None:
        try:
            for frame in self.source:
                if not self._put(frame):
                    return
        except Exception as fault:  # handed to whoever asks for the next frame
            self._fault = fault
        finally:
            with self._change:
                self._finished = True
                self._change.notify_all()

    def _put(self, frame: Frame) -> bool:
        """Make a frame ready; False: nobody wants any more."""
        with self._change:
            while len(self._frames) >= self._ahead and not self._stopped:
                if self.source.live:
                    self._frames.popleft()
                    self.dropped += 1
                else:
                    self._change.wait()
            self._frames.append(frame)
            self._change.notify_all()
            return not self._stopped
