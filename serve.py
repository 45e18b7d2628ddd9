"""The prediction server from a clone, nothing installed but its libraries; or `gunicorn 'serve:create_app()'`."""

from ser_lib.serving.command import create_app, serve

__all__ = ["create_app"]

if __name__ == "__main__":
    serve()
