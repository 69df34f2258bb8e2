# Thin wrappers; each target says in its `##` what it is for.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(HOME)/.cargo/bin:$(PATH)

WEB_SOURCES := $(shell find web/src web/public web/index.html web/package-lock.json web/vite.config.ts -type f 2>/dev/null)

.PHONY: help setup run demo test test-scale lint fmt bench campaign-fuzz campaign-kills campaign-loads campaign-memory campaign-move campaign-nth campaign-pauses campaign-queue image deploy apply down campaign-cluster campaign-crashes campaign-cuts campaign-uploads campaign-corpus campaign-mutations campaign-workers clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

setup: ## install what is missing: Debian packages, Node, Rust
	@scripts/setup run

run: setup web/dist/index.html ## build and start everything on embedded defaults (data in ./data)
	cargo run

demo: ## three sample videos, made here and uploaded to the server that `make run` started
	@scripts/setup test
	@scripts/demo

test: web/dist/index.html ## all tests: units, conformance, pipeline, end to end, browser
	@scripts/setup test
	cargo build --workspace --tests --bins
	cargo nextest run --workspace
	cargo test --workspace --doc --quiet
	cd web && npm test --silent
	deploy/test/run

test-scale: web/dist/index.html ## the same on PostgreSQL, S3 (Garage) and Redis, which are started and stopped
	@scripts/setup scale
	cargo build --workspace --tests --bins
	scripts/servers run scripts/test-scale

lint: web/dist/index.html ## formatting, clippy, licences and sources, TypeScript
	@scripts/setup lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo deny --log-level error check licenses bans sources
	cd web && npm run --silent check

fmt: ## format the code
	cargo fmt --all

bench: ## comparisons with peers; results go to bench/results/
	@scripts/setup bench
	bench/transcode.py
	bench/playable.py
	bench/rates.py
	bench/upload.py
	bench/serve.py

campaign-fuzz: ## 10,000,000 heads and forms, 100,000,000 ranges and 100,000 sequences of uploads by chance, under AddressSanitizer (TARGET=forms for one of them)
	@scripts/setup fuzz
	scripts/fuzz $(TARGET)

campaign-kills: ## kill -9 at 50 random points of upload and encode; see bench/results/
	@scripts/setup test
	SLUICE_TEST_KILLS=50 cargo nextest run --workspace -E "test(kills::)" --no-capture

campaign-loads: ## a minute each, of the release build: 10,000 idle connections, 1,000 uploads, ten times too many of them, 1,000 viewers, 10,000 who only take up places
	@scripts/setup test
	cargo build --workspace --bins --release
	SLUICE_TEST_LOAD_CONNECTIONS=10000 SLUICE_TEST_LOAD_UPLOADS=1000 SLUICE_TEST_LOAD_STREAMS=1000 \
	  SLUICE_TEST_LOAD_SLOW=10000 SLUICE_TEST_LOAD_S=60 SLUICE_TEST_PROGRAMS_DIR=$(CURDIR)/target/release \
	  cargo nextest run --workspace --profile campaign -E "test(loads::)" --no-capture

campaign-memory: ## 2 GiB up and down, resident memory measured; see bench/results/
	@scripts/setup test
	SLUICE_TEST_MEMORY_BYTES=2147483648 cargo nextest run --workspace -E "test(memory::)" --no-capture

campaign-move: ## 500 videos from SQLite and a disk to PostgreSQL and Garage, the mover killed 20 times
	@scripts/setup scale
	SLUICE_TEST_MOVE_VIDEOS=500 SLUICE_TEST_MOVE_KILLS=20 SLUICE_TEST_MOVE_TO=garage scripts/servers run \
	  cargo nextest run --workspace --profile campaign -E "test(moving::a_library)" --no-capture

campaign-nth: ## a video's whole life with every single call to the store and the database failing once, on each database
	@scripts/setup scale
	SLUICE_TEST_NTH_STRIDE=1 scripts/servers run \
	  cargo nextest run --workspace --profile campaign --run-ignored all -E "test(nth::)" --no-capture

campaign-pauses: ## a scheduler stopped past its lease and continued, 200 times on SQLite, 200 on PostgreSQL
	@scripts/setup scale
	SLUICE_TEST_PAUSES=200 scripts/servers run bash -ec 'for on in sqlite postgres; do \
	  SLUICE_TEST_BACKENDS=$$on+disk cargo nextest run --workspace --profile campaign -E "test(pauses::)" --no-capture; done'

campaign-queue: ## 10,000 jobs and 10,000 deletions by 8 schedulers on each database, then ten minutes of jobs of all fates
	@scripts/setup scale
	SLUICE_TEST_JOBS=10000 SLUICE_TEST_SOAK_S=600 scripts/servers run \
	  cargo nextest run --workspace --profile campaign -E "package(scheduler) and test(queue::)" --no-capture

IMAGE ?= sluice:0.1.0
PROFILE ?= one

image: ## build the container image (IMAGE=sluice:0.1.0)
	docker build --file deploy/image/Containerfile --build-arg REVISION=$$(git rev-parse HEAD) --tag $(IMAGE) .

deploy: image ## run the image here: one container, or PROFILE=scale with PostgreSQL, Garage and Valkey
	deploy/make-secrets
	IMAGE=$(IMAGE) docker compose --file deploy/compose.yaml --profile $(PROFILE) up --detach --wait

apply: ## apply an overlay to the cluster of kubectl: OVERLAY=local, s3 or ha
	deploy/kubernetes/apply $(or $(OVERLAY),local)

down: ## stop what `deploy` started, or with OVERLAY=local what `apply` did; data stays
	$(if $(OVERLAY),kubectl delete -k deploy/kubernetes/overlays/$(OVERLAY),docker compose --file deploy/compose.yaml --profile one --profile scale down)

campaign-cluster: ## 200 films on PostgreSQL and Garage while a random process is killed every 2 s
	@scripts/setup scale
	SLUICE_TEST_BACKENDS=postgres+garage SLUICE_TEST_CLUSTER_FILMS=200 scripts/servers run \
	  cargo nextest run --workspace --profile campaign -E "test(cluster::films_become)" --no-capture

campaign-crashes: ## 2,000 kills of random processes under mixed load, on PostgreSQL and Garage
	@scripts/setup scale
	SLUICE_TEST_BACKENDS=postgres+garage SLUICE_TEST_CRASHES=2000 scripts/servers run \
	  cargo nextest run --workspace --profile campaign -E "test(crashes::)" --no-capture

campaign-cuts: ## 20,000 resumable uploads cut at random bytes, with 500 kills among them, on a disk and on PostgreSQL and Garage
	@scripts/setup scale
	SLUICE_TEST_CUTS=20000 SLUICE_TEST_CUT_KILLS=500 \
	  cargo nextest run --workspace --profile campaign -E "test(cuts::)" --no-capture
	SLUICE_TEST_BACKENDS=postgres+garage SLUICE_TEST_CUTS=20000 SLUICE_TEST_CUT_KILLS=500 scripts/servers run \
	  cargo nextest run --workspace --profile campaign -E "test(cuts::)" --no-capture

campaign-uploads: ## 100 uploads of 64 MiB at once to Garage, resident memory measured
	@scripts/setup scale
	SLUICE_TEST_BACKENDS=postgres+garage SLUICE_TEST_UPLOADS=100 SLUICE_TEST_UPLOAD_BYTES=67108864 scripts/servers run \
	  cargo nextest run --workspace --profile campaign -E "test(memory::many_uploads)" --no-capture

campaign-corpus: ## every file of SLUICE_MEDIA_DIR through the transcoder, measured; the table goes to bench/results/corpus.md
	@scripts/setup test
	cargo nextest run --workspace --profile campaign --run-ignored only -E "binary(corpus)" --no-capture

campaign-mutations: ## 20,000 damaged files of all containers through the sandboxed child
	@scripts/setup test
	SLUICE_TEST_MUTATIONS=20000 cargo nextest run --workspace --profile campaign -E "binary(mutations)" --no-capture

campaign-workers: ## 500 kills of schedulers and transcoders at random moments, over 100 films
	@scripts/setup test
	SLUICE_TEST_WORKERS_FILMS=100 SLUICE_TEST_WORKERS_KILLS=500 \
	  cargo nextest run --workspace --profile campaign -E "test(workers::)" --no-capture

clean: ## remove what was built; the data directory stays
	cargo clean
	rm -rf web/dist web/node_modules

web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	@scripts/setup run
	cd web && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

web/dist/index.html: web/node_modules/.package-lock.json $(WEB_SOURCES)
	cd web && npm run --silent build
	@touch $@
