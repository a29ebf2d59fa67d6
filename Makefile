# `make demo` and `make test` need nothing but Go.
GO ?= go
STATICCHECK = $(GO) tool -modfile=tools/go.mod staticcheck
E2E_TIMEOUT ?= 40m
SOAK ?= 10

.PHONY: build demo test check e2e soak fuzz bench clean

build:
	$(GO) build -trimpath -o build/lifeboat ./cmd/lifeboat

# The whole story on an etcd of our own: write, save, wreck, verify, restore.
demo:
	$(GO) run ./cmd/lifeboat quickstart

test:
	$(GO) test ./...

check:
	@fmt=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$fmt" || { echo "gofmt: $$fmt"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags e2e ./...
	GOOS=darwin $(GO) vet ./cmd/lifeboat ./internal/... ./backup/... ./restore ./forensic ./repository ./scheduler ./storage/... ./walcodec ./snapcodec
	$(STATICCHECK) -tags e2e ./...
	$(GO) test -race -short -timeout 30m ./...

# Against real etcd servers: 3.4 from the distribution, 2.3 and 3.5 to 3.7 built here.
e2e:
	e2e/build.sh
	$(GO) test -tags e2e -timeout $(E2E_TIMEOUT) ./e2e/... ./internal/server/... ./internal/etcdctl2/...

# The campaigns of e2e and the model of the repository, SOAK times as long.
soak:
	LIFEBOAT_SOAK=$(SOAK) $(GO) test -timeout 12h ./repository
	LIFEBOAT_SOAK=$(SOAK) $(MAKE) e2e E2E_TIMEOUT=12h

# Every fuzz target for FUZZTIME each.
FUZZTIME ?= 30s
fuzz:
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; \
	done

# Ours and its peers side by side, on generated data.
bench:
	$(GO) run ./bench

clean:
	rm -rf build
