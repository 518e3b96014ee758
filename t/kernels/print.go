package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

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

func writeText(w io.Writer, reports []report) {
	for _, p := range asked(reports) {
		relied := "relied on"
		if p.Relax {
			relied = "either way"
		}
		fmt.Fprintf(w, "%s (%s)\n    %s\n    why: %s\n", p.Name, relied, p.Says, p.Why)
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
		"Bold: wcfs relies on \"yes\". Otherwise it is prepared for either answer. \"-\": that kernel was not asked, as it has no v9fs.\n")
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
		for _, r := range reports {
			if a, ok := r.of(p.Name); ok {
				fmt.Fprintf(w, "- %s: %s; %s\n", r.Release, a.Word, a.Seen)
			}
		}
	}
}

func title(group string) string {
	switch group {
	case probe.FUSE:
		return "FUSE"
	case probe.V9FS:
		return "9P in guests (v9fs)"
	}
	return "Memory mappings"
}
