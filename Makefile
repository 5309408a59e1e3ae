# What can be made; "make" alone lists it.

GOTESTFLAGS =
FUZZTIME = 30s
BENCHTIME = 1s
FAULTS =
SYSTEMS = linux/386 linux/amd64 linux/arm linux/arm64 darwin/arm64 freebsd/amd64 windows/amd64

.PHONY: help run test faults deps lint manifests cross fuzz attack bench benchmarks plots

help: ## list this
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

run: ## start a node on :8765
	go run ./cmd/parley

test: deps ## install what the tests need, where that is allowed, and run them all
	go test -race -p 3 -timeout 15m $(GOTESTFLAGS) ./...

faults: ## break a cluster in every way, and print what became of it; FAULTS="--mixes 2h" mixes them at random
	go run ./cmd/parley-faults $(FAULTS)

deps: ## install what the tests need, where that is allowed
	@.ci/deps

lint: ## check format, vet, staticcheck and go.mod
	@unformatted=$$(go tool gofumpt -l .) || exit 1; \
	if [ -n "$$unformatted" ]; then echo "not formatted by gofumpt:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...
	go mod tidy -diff

manifests: ## read the manifests for Kubernetes strictly, as what they are to be
	go run -C .ci/manifests . ../../.deploy/kubernetes

cross: ## build the program for each of SYSTEMS, stamped as in the image
	@dir=$$(mktemp -d) && trap 'rm -r "$$dir"' EXIT && for system in $(SYSTEMS); do \
		echo "$$system"; \
		CGO_ENABLED=0 GOOS=$${system%/*} GOARCH=$${system#*/} go build -trimpath -ldflags "-s -w -X main.version=v0-$$system" \
			-o "$$dir/parley" ./cmd/parley && grep -aqF "v0-$$system" "$$dir/parley" || { echo "it is not stamped"; exit 1; }; \
	done

fuzz: ## run every fuzz target for FUZZTIME
	@targets=$$(grep -r --include='*_test.go' '^func Fuzz' . | sed 's|^\(.*\)/[^/]*:func \(Fuzz[A-Za-z0-9_]*\).*|\1 \2|'); \
	if [ -z "$$targets" ]; then echo "there are no fuzz targets"; exit 1; fi; \
	echo "$$targets" | while read -r package target; do \
		echo "$$package $$target"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null || exit 1; \
	done

attack: ## attack a node as hostile clients would: PARLEY= attacks another program
	@dir=$$(mktemp -d) && trap 'rm -r "$$dir"' EXIT && go build -o "$$dir/parley" ./cmd/parley && \
	go run ./cmd/parley-attack --parley "$${PARLEY:-$$dir/parley}"

bench: benchmarks ## run the Go benchmarks, and load two nodes beside the floor and a plain hub
	go run ./cmd/parley-bench suite

benchmarks: ## run the Go benchmarks alone, for BENCHTIME each
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -timeout 60m ./...

plots: ## draw cmd/parley-bench/results/growth.json, and write the tables of SCALE.md
	go run ./cmd/parley-bench/plot cmd/parley-bench/results/growth.json cmd/parley-bench/results
	go test -run SCALE ./cmd/parley-bench/suite -update
