package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"wcfs/fusesrv/kernel"
	"wcfs/t/kernels/probe"
)

// write prints behaviour × kernel.
func write(w io.Writer, format string, reports []report) error {
	switch format {
	case "text":
		writeText(w, reports)
	case "markdown":
		writeMarkdown(w, reports)
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(reports)
	default:
		return fmt.Errorf("format %q: want text, markdown or json", format)
	}
	return nil
}

// asked are the probes that some kernel was asked.
func asked(reports []report) []probe.Probe {
	var out []probe.Probe
	for _, p := range probe.All() {
		for _, r := range reports {
			if _, ok := r.of(p.Name); ok {
				out = append(out, p)
				break
			}
		}
	}
	return out
}

// mark is an answer in a table: what wcfs relies on and does not hold stands out.
func mark(p probe.Probe, r report) string {
	a, ok := r.of(p.Name)
	switch {
	case !ok:
		return "-"
	case !p.Relax && a.Word != "yes":
		return strings.ToUpper(a.Word)
	}
	return a.Word
}

// needs is what gives a behaviour, and whether a server looks for it.
func needs(p probe.Probe) string {
	if p.Relax || p.Group() == kernel.V9FS {
		return p.Needs.String()
	}
	return p.Needs.String() + "; checked when a server starts"
}

func writeText(w io.Writer, reports []report) {
	for _, p := range asked(reports) {
		relied := "relied on"
		if p.Relax {
			relied = "either way"
		}
		fmt.Fprintf(w, "%s (%s)\n    %s\n    why: %s\n", p.Name, relied, p.Says, p.Why)
		if p.Needs != (kernel.Needs{}) {
			fmt.Fprintf(w, "    needs: %s\n", needs(p))
		}
		for _, r := range reports {
			if a, ok := r.of(p.Name); ok {
				fmt.Fprintf(w, "    %-24s %-5s %s\n", r.Kernel+" "+r.Release, mark(p, r), a.Seen)
			}
		}
	}
}

func writeMarkdown(w io.Writer, reports []report) {
	fmt.Fprint(w, "# What kernels do\n\n"+
		"wcfs depends on how the kernel's FUSE client, its 9P client (v9fs) and its memory mappings behave. Each row is a\n"+
		"program under `t/kernels/probe` that asks the kernel, so that this page is made, not written:\n\n"+
		"    go run ./t/kernels -format markdown host 6.1 6.12 >docs/kernels.md\n\n"+
		"`make kernels` shows the same as text, for the kernels in `KERNELS`, and fails when something that wcfs relies on does\n"+
		"not hold. For a kernel you have just built: `make kernels KERNELS=path/of/build/tree`.\n\n"+
		"Bold: wcfs relies on \"yes\". Otherwise it is prepared for either answer. \"-\": that kernel was not asked, as it has no v9fs.\n"+
		"\"n/a\": it has no such thing.\n\n"+
		"A server that mounts checks for what is known to give the behaviours in bold (\"Needs\" below), by what it agrees on with\n"+
		"the kernel and by the kernel's release, and does not start where something is missing. `wcfs serve --any-kernel` does not\n"+
		"look at the release, for kernels into which newer parts were put: ask such a kernel with `make kernels` first.\n")
	var head, line strings.Builder
	for _, r := range reports {
		fmt.Fprintf(&head, " %s |", r.Release)
		line.WriteString("---|")
	}
	group := ""
	for _, p := range asked(reports) {
		if p.Group() != group {
			group = p.Group()
			fmt.Fprintf(w, "\n## %s\n\n| | |%s\n|---|---|%s\n", title(group), head.String(), line.String())
		}
		name := p.Name
		if !p.Relax {
			name = "**" + name + "**"
		}
		fmt.Fprintf(w, "| %s | %s |", name, p.Says)
		for _, r := range reports {
			fmt.Fprintf(w, " %s |", mark(p, r))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "\n## What each means, and what was seen\n")
	for _, p := range asked(reports) {
		fmt.Fprintf(w, "\n**%s**: %s.\n", p.Name, p.Why)
		if p.Needs != (kernel.Needs{}) {
			fmt.Fprintf(w, "Needs %s.\n", needs(p))
		}
		fmt.Fprintln(w)
		for _, r := range reports {
			if a, ok := r.of(p.Name); ok {
				fmt.Fprintf(w, "- %s: %s; %s\n", r.Release, a.Word, a.Seen)
			}
		}
	}
}

func title(group string) string {
	switch group {
	case kernel.FUSE:
		return "FUSE"
	case kernel.V9FS:
		return "9P in guests (v9fs)"
	}
	return "Memory mappings"
}
