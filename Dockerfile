# The prediction server alone: docker build -t ser . && docker run --read-only -p 8000:8000 ser
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
COPY requirements-serve.lock .
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements-serve.lock
COPY ser_lib ser_lib
COPY models models
COPY serve.py .

USER 10001
EXPOSE 8000
HEALTHCHECK --start-period=20s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/ready', timeout=5)"]
CMD ["python", "serve.py", "--host", "0.0.0.0"]
