# The two commands of the README on a bare machine: docker build -t project . && docker run --rm project
# For a shell instead, with your own run folders: docker run --rm -it -v "$PWD/runs:/project/runs" project bash
FROM python:3.12-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends git make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /project
COPY . .
RUN make setup
CMD ["sh", "-c", "make train && make test"]
