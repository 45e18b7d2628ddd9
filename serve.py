"""The prediction server from a clone, nothing installed but its libraries; or `gunicorn 'serve:create_app()'`."""

from ser_lib.serving.command import serve
from ser_lib.serving.server import create_app

__all__ = ["create_app"]

if __name__ == "__main__":
    serve()
