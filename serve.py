"""The prediction server from a clone, nothing installed but its libraries; or `gunicorn 'serve:create_app()'`."""

from ser_lib.cli_serve import serve
from ser_lib.endpoints import create_app

__all__ = ["create_app"]

if __name__ == "__main__":
    serve()
