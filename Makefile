# Every target works from a fresh clone: the virtual environment .venv makes itself, with the exact versions of
# constraints.txt. `make` alone lists the targets.

PYTHON ?= python3
PREFIX ?= /usr/local
DESTDIR ?=
FILE ?=
ARGS ?=

# systemd looks into /usr/local/lib for what was installed by hand. /etc/systemd/system stays the administrator's own:
# there `systemctl edit` keeps the changes, which no installation overwrites.
UNITDIR ?= /usr/local/lib/systemd/system
SYSUSERSDIR ?= /usr/local/lib/sysusers.d

# What stands before every path must be absolute and end without a slash: it is taken out of scripts again.
ifneq ($(DESTDIR),)
override DESTDIR := $(filter-out /,$(abspath $(DESTDIR)))
endif

LIBDIR = $(PREFIX)/lib/interfiles
COMMANDS = interfiles interfiles-master interfiles-client
UNITS = interfiles-master.service interfiles-client.service
IN_VENV = .venv/bin/python -m

# Versions never float, those of the build backend included: pip reads the first variable for what it installs (before
# 25.3 also for what it builds with), the second for what it builds with.
export PIP_CONSTRAINT = constraints.txt
export PIP_BUILD_CONSTRAINT = constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1

# Compiled modules are kept, whatever the environment says: else each daemon and command would compile them all again.
export PYTHONDONTWRITEBYTECODE =

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check format master client install uninstall clean \
	check-format check-lint check-types check-root bench-pair bench-swarm bench-loop bench-limits bench-master \
	bench-reconcile bench-repair profile sim

define check_python
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo 'InterFiles needs Python 3.11 or newer, and "$(PYTHON)" is not that; name one with PYTHON=python3.12.' >&2; \
	exit 1; }; \
$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	echo 'The venv module of "$(PYTHON)" is missing; install it (Debian and Ubuntu: apt install python3-venv).' >&2; \
	exit 1; }
endef

help: ## list the targets
	@echo 'Usage: make TARGET [PYTHON=python3.12]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: export DEMO_FILE := $(value FILE)
demo: .venv/.runtime ## a master and four clients on this machine; FILE=path sends that file or directory
	@$(IN_VENV) tests.demo $${DEMO_FILE:+"$$DEMO_FILE"}

test: .venv/.test ## all tests; ARGS='-k token' picks some
	@$(IN_VENV) pytest --numprocesses=auto --maxprocesses=8 --dist=worksteal $(ARGS)

check: check-format check-lint check-types test ## formatting, lint, types and all tests

format: .venv/.test ## rewrite the code in the project's format
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

master: .venv/.runtime ## the master in the foreground; ARGS='--listen HOST:PORT'
	@$(IN_VENV) daemons.master $(ARGS)

client: .venv/.runtime ## a client in the foreground; ARGS='--join TOKEN'
	@$(IN_VENV) daemons.client $(ARGS)

check-format: .venv/.test
	@.venv/bin/ruff format --check .

check-lint: .venv/.test
	@.venv/bin/ruff check .

check-types: .venv/.test
	@$(IN_VENV) mypy

.venv/.runtime: pyproject.toml constraints.txt
	@$(check_python)
	@echo 'Making the virtual environment .venv (once, about a minute) ...'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@$(IN_VENV) pip install -qq -e .
	@touch $@

bench-pair: .venv/.bench ## how fast one host gets a file from another, beside rivals; ARGS='--size 4 --on /dev/shm'
	@$(IN_VENV) benchmarks.pair $(ARGS)

bench-swarm: .venv/.bench ## how soon a file is on all of many hosts, beside rivals; as root; ARGS='--only equal-8 --rounds 1'
	@$(IN_VENV) benchmarks.swarm $(ARGS)

bench-loop: .venv/.bench ## how fast the daemons answer during a transfer
	@$(IN_VENV) benchmarks.loop_latency $(ARGS)

bench-limits: .venv/.bench ## how exactly limits are kept to; ARGS='--seconds 10'
	@$(IN_VENV) benchmarks.limits $(ARGS)

bench-repair: .venv/.bench ## what a download keeps of its rate while replicas are made; as root; ARGS='--rounds 1 --only up'
	@$(IN_VENV) benchmarks.repair $(ARGS)

bench-master: .venv/.bench ## what one master carries: 5,000 hosts, 1,000,000 files; ARGS='--hosts 500 --files 10000'
	@$(IN_VENV) benchmarks.master $(ARGS)

bench-reconcile: .venv/.bench ## how long the master takes to compare what is with what should be; ARGS='--hosts 100'
	@$(IN_VENV) benchmarks.reconcile --json benchmarks/results/reconcile.json $(ARGS)

profile: .venv/.bench ## flame graphs of both daemons during a transfer
	@$(IN_VENV) benchmarks.flames $(ARGS)

sim: .venv/.runtime ## a fleet of 1,000 hosts in virtual time, some two minutes; ARGS='--hosts 100 --dying 0.05'
	@$(IN_VENV) benchmarks.sim $(ARGS)

.venv/.bench: .venv/.runtime
	@echo 'Adding the rivals and tools of the benchmarks to .venv ...'
	@$(IN_VENV) pip install -qq -e '.[bench]'
	@touch $@

.venv/.test: .venv/.runtime
	@echo 'Adding the test tools to .venv ...'
	@$(IN_VENV) pip install -qq -e '.[test]'
	@touch $@

check-root:
	@test -n '$(DESTDIR)' || test "$$(id -u)" = 0 || { \
		echo 'This changes the system: run it with sudo, or give DESTDIR=directory to put the files elsewhere.' >&2; \
		exit 1; }

# All that needs the network comes first, in a scratch directory: a failure there leaves an older installation whole.
install: check-root ## put it under PREFIX (/usr/local) with systemd units and the user interfiles; as root
	@$(check_python)
	@echo 'Installing into $(DESTDIR)$(LIBDIR) ...'
	@set -e; umask 022; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(PYTHON) -m venv "$$scratch/venv"; \
	"$$scratch/venv/bin/python" -m pip wheel -qq --wheel-dir "$$scratch/wheels" .; \
	$(PYTHON) -m venv --clear --without-pip '$(DESTDIR)$(LIBDIR)'; \
	"$$scratch/venv/bin/python" -m pip --python '$(DESTDIR)$(LIBDIR)/bin/python' \
		install -qq --no-compile --no-index --find-links "$$scratch/wheels" interfiles
	@if test -n '$(DESTDIR)'; then grep -rlIF '$(DESTDIR)' '$(DESTDIR)$(LIBDIR)/bin' '$(DESTDIR)$(LIBDIR)/pyvenv.cfg' | \
		while read -r script; do sed -i 's|$(DESTDIR)||g' "$$script"; done; fi
	@umask 022; '$(DESTDIR)$(LIBDIR)/bin/python' -m compileall -q -s '$(DESTDIR)' '$(DESTDIR)$(LIBDIR)/lib'
	@install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(UNITDIR)' '$(DESTDIR)$(SYSUSERSDIR)' '$(DESTDIR)/etc/interfiles'
	@for command in $(COMMANDS); do \
		ln -sfn "$(LIBDIR)/bin/$$command" "$(DESTDIR)$(PREFIX)/bin/$$command" || exit 1; done
	@for unit in $(UNITS); do sed 's|/usr/local/bin/|$(PREFIX)/bin/|' "daemons/systemd/$$unit" \
		>"$(DESTDIR)$(UNITDIR)/$$unit" || exit 1; chmod 0644 "$(DESTDIR)$(UNITDIR)/$$unit"; done
	@install -m 0644 daemons/systemd/interfiles.sysusers '$(DESTDIR)$(SYSUSERSDIR)/interfiles.conf'
ifeq ($(DESTDIR),)
	@if command -v systemd-sysusers >/dev/null; then systemd-sysusers '$(SYSUSERSDIR)/interfiles.conf'; \
	elif ! getent passwd interfiles >/dev/null; then \
		useradd --system --user-group --home-dir /var/lib/interfiles --shell /usr/sbin/nologin interfiles; fi
	@install -d -m 0755 -o interfiles -g interfiles /srv/interfiles
	@if command -v runuser >/dev/null && ! runuser -u interfiles -- '$(LIBDIR)/bin/python' -c '' 2>/dev/null; then \
		echo 'The user interfiles cannot run "$(PYTHON)", which lies in a private place; the daemons will not start.' \
			'Install again with PYTHON=/usr/bin/python3 or the like.' >&2; exit 1; fi
	@if test -d /run/systemd/system; then systemctl daemon-reload; fi
	@echo 'Installed. Next, on the host that is to be the master:'
	@echo '  systemctl enable --now interfiles-master'
	@echo '  interfiles token'
	@echo 'On every host put its output into /etc/credstore/interfiles.token (mode 0600), then:'
	@echo '  systemctl enable --now interfiles-client'
endif

uninstall: check-root ## take away what install put there; state, downloads and settings stay
ifeq ($(DESTDIR),)
	@if test -d /run/systemd/system; then systemctl disable --now -q $(UNITS) 2>/dev/null || true; fi
endif
	@for command in $(COMMANDS); do rm -f "$(DESTDIR)$(PREFIX)/bin/$$command"; done
	@for unit in $(UNITS); do rm -f "$(DESTDIR)$(UNITDIR)/$$unit"; done
	@rm -f '$(DESTDIR)$(SYSUSERSDIR)/interfiles.conf'
	@rm -rf '$(DESTDIR)$(LIBDIR)'
ifeq ($(DESTDIR),)
	@if test -d /run/systemd/system; then systemctl daemon-reload; fi
endif
	@echo 'Uninstalled. /var/lib/interfiles, /srv/interfiles, /etc/interfiles and the user interfiles stay.'

clean: ## remove .venv and everything else that was made here
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
