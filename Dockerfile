# One image for the web and the workers; the command says which.
FROM python:3.12-slim
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 STATE_DIR=/state
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
RUN useradd --system --uid 10001 fieldwork && install -d -o fieldwork -m 0700 /state
USER fieldwork
VOLUME /state
EXPOSE 8000
CMD ["daphne", "-b", "0.0.0.0", "-p", "8000", "osint.asgi:application"]
