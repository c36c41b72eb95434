"""Keep the chatter of other packages off the reader's terminal."""

import contextlib
import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's and XLA's C++ log lines
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
if sys.platform.startswith("linux"):  # SDL complains on machines without a desktop
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())


@contextlib.contextmanager
def quiet(message: str = ""):
    """Hold back all that the block writes to standard error; show it only if the block raises.

    C++ code writes to the file descriptor itself, so that is what is redirected. A notebook's sys.stderr leads
    elsewhere, and the block gets the original one.
    message: shown on a terminal as long as the block runs.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    message = message if os.isatty(terminal) else ""
    os.write(terminal, message.encode())
    with tempfile.TemporaryFile() as held, contextlib.redirect_stderr(sys.__stderr__):
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            sys.stderr.flush()
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.write(terminal, b"\r" + b" " * len(message) + b"\r" if message else b"")
            os.close(terminal)
