# wcfs: one command each. See CONTRIBUTING.md.
GO          ?= go
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
KERNELS     ?= host 6.1 6.12
DIST        ?= dist

# Packages are tested side by side on as many processors as there are; the tests wait for conditions, not for time.
TESTP       ?= 2
TESTTIMEOUT ?= 30m

# Scripts and tests run plain `go`: that is the one that GO names.
export PATH := $(shell $(GO) env GOROOT)/bin:$(PATH)

.PHONY: all demo test test-quick lint bench kernels soak mutants test-guests fuzz-smoke setup install deb docs dist clean

all: wcfs

wcfs: FORCE
	CGO_ENABLED=0 $(GO) build -buildvcs=auto -trimpath -o wcfs .
FORCE:

# make demo STAY=1 keeps serving until Ctrl-C
demo: wcfs
	./wcfs demo $(if $(STAY),--stay)

setup:
	t/setup

test: setup wcfs
	GO="$(GO)" TESTP=$(TESTP) TESTTIMEOUT=$(TESTTIMEOUT) t/run

# What needs neither root, Python, QEMU nor a mount: the first thing to run after a change.
test-quick:
	$(GO) test ./t/lint ./zcore ./zcore/history ./zcore/tree ./zcore/watchproto ./zcore/zdata ./zcore/client \
	    ./zcore/zodb ./zcore/zodb/btree ./zcore/zodb/filestorage ./zcore/zodb/fsformat ./zcore/zodb/fswriter \
	    ./zcore/zodb/memstorage ./zcore/zodb/record ./p9srv

lint:
	t/setup deb
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "lint: run gofmt -w on these files" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags guests,soak,measure ./t/...
	$(GO) run $(STATICCHECK) ./...
	$(GO) test -count=1 ./t/lint
	shellcheck $$(git ls-files | xargs -r awk 'FNR == 1 { if (/^#!.*(bash|\/sh)$$/) print FILENAME; nextfile }')

# make bench ROW=cold,9p measures some rows; BENCHFLAGS=-list names them, BENCHFLAGS=-markdown prints for a document.
bench:
	t/setup
	$(GO) run ./t/bench $(if $(ROW),-row "$(ROW)") $(BENCHFLAGS)

# What the kernels asked for do with fuse and 9p, as far as wcfs relies on it.
kernels:
	t/setup deb
	$(GO) run ./t/kernels $(KERNELS)

test-guests: setup wcfs
	WCFS_SOAK=1 $(GO) run ./t/gotest -count=1 -p 1 -timeout 1h -tags guests,soak ./qemu ./t/guestmount ./t/guestisolation ./t/client

# Long runs of the random tests.
soak: setup wcfs
	WCFS_SOAK=1 $(GO) test -count=1 -timeout 6h -run TestOracle ./zcore/history
	WCFS_SOAK=1 $(GO) test -race -count=1 -timeout 3h -tags soak ./zcore/... ./fusesrv/... ./p9srv/... ./t/...

# Breaks the core in many ways, one at a time: its tests must notice each.
mutants:
	WCFS_SOAK=1 $(GO) test -count=1 -timeout 1h -v ./t/mutants

# Every fuzz target for a few seconds: do they still run, and find nothing at once?
FUZZTIME ?= 10s
fuzz-smoke:
	@set -e; for pkg in $$($(GO) list ./...); do \
	    for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	        echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg; \
	    done; \
	done

# PREFIX is /usr/local; DESTDIR is put in front of it, for packages.
install: wcfs
	packaging/install

# Debian packages of the commit that is checked out, into dist/.
deb:
	packaging/deb $(DIST)

# Pictures of the documents, from their sources; needs Debian's graphviz.
docs:
	dot -Tsvg docs/house.dot -o docs/house.svg

# A release: static binaries, the source, and their checksums. Built twice from one commit they are the same bytes.
dist:
	GO="$(GO)" t/dist "$(DIST)"

clean:
	rm -rf wcfs dist
