package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/alecthomas/kong"
)

// manualCmd is `wcfs manual DIR`, for packages: it writes the manual pages, made of what the command line knows.
type manualCmd struct {
	Dir string `arg:"" help:"Folder that gets wcfs.1 and a page for each subcommand."`
}

// Run writes the pages.
func (c *manualCmd) Run(p *program, k *kong.Kong) error {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return err
	}
	pages := map[string]func(io.Writer){"wcfs.1": func(w io.Writer) { writeMainPage(w, k) }}
	for _, cmd := range subcommands(k) {
		pages["wcfs-"+cmd.Name+".1"] = func(w io.Writer) { writeCommandPage(w, k, cmd) }
	}
	for name, write := range pages {
		var b strings.Builder
		write(&b)
		if err := os.WriteFile(filepath.Join(c.Dir, name), []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// subcommands lists those that are for users, in the order of the help.
func subcommands(k *kong.Kong) []*kong.Node {
	var list []*kong.Node
	for _, cmd := range k.Model.Children {
		if !cmd.Hidden {
			list = append(list, cmd)
		}
	}
	return list
}

func writeMainPage(w io.Writer, k *kong.Kong) {
	pageHead(w, "wcfs", "file server for the bigfiles of a ZODB database")
	section(w, "SYNOPSIS")
	fmt.Fprintf(w, ".B wcfs\n.I COMMAND\n[options] ...\n.br\n.B wcfs\n[options]\n.I ZURL MNT\n")
	section(w, "DESCRIPTION")
	fmt.Fprintln(w, roff("wcfs opens a ZODB database read-only, follows its commits, and serves its bigfiles as one tree of files, over FUSE and over 9P2000.L: "+
		"the latest data below head/, any past revision below @TID/. The second form is the one that existing clients of wendelin.core start; it is as `wcfs serve --mount MNT ZURL` with other defaults."))
	section(w, "COMMANDS")
	for _, cmd := range subcommands(k) {
		item(w, `\fBwcfs\-`+roff(cmd.Name)+`\fR(1)`, cmd.Help)
	}
	section(w, "EXIT STATUS")
	exitStatusText(w)
	section(w, "FILES")
	item(w, roff(".wcfs/zurl, .wcfs/pintimeout, .wcfs/stats, .wcfs/version"), "In the tree: the database, options, counters and the version of the server.")
	section(w, "SEE ALSO")
	fmt.Fprintln(w, "The documents in /usr/share/doc/wcfs.")
}

func writeCommandPage(w io.Writer, k *kong.Kong, cmd *kong.Node) {
	pageHead(w, "wcfs-"+cmd.Name, lowerFirst(strings.TrimSuffix(cmd.Help, ".")))
	section(w, "SYNOPSIS")
	fmt.Fprintf(w, ".B wcfs %s\n[options]", roff(cmd.Name))
	for _, arg := range cmd.Positional {
		fmt.Fprintf(w, "\n.I %s", roff(arg.Summary()))
	}
	fmt.Fprintln(w)
	section(w, "DESCRIPTION")
	fmt.Fprintln(w, roff(cmd.Help))
	if len(cmd.Positional) > 0 {
		section(w, "ARGUMENTS")
		for _, arg := range cmd.Positional {
			item(w, `\fI`+roff(arg.Summary())+`\fR`, arg.Help)
		}
	}
	section(w, "OPTIONS")
	for _, flag := range flagsOf(cmd) {
		item(w, flagTitle(flag), flag.Help)
	}
	section(w, "EXIT STATUS")
	if cmd.Name == "run" {
		item(w, "the program's", "or 128 and the number of the signal that ended it")
		item(w, "124", "the program ran longer than --timeout")
		item(w, "125", "there was no guest, it ended early, or its output could not be written")
	} else {
		exitStatusText(w)
	}
	section(w, "SEE ALSO")
	fmt.Fprintln(w, `\fBwcfs\fR(1)`)
}

// flagsOf lists a subcommand's options and those of all commands, without hidden ones.
func flagsOf(cmd *kong.Node) []*kong.Flag {
	var flags []*kong.Flag
	for _, group := range cmd.AllFlags(true) {
		flags = append(flags, group...)
	}
	return flags
}

// flagTitle is an option with its value.
func flagTitle(flag *kong.Flag) string {
	title := `\fB\-\-` + roff(flag.Name) + `\fR`
	if flag.Short != 0 {
		title = `\fB\-` + string(flag.Short) + `\fR, ` + title
	}
	if !flag.IsBool() && !flag.IsCounter() {
		title += `=\fI` + roff(strings.Trim(flag.FormatPlaceHolder(), `"`)) + `\fR`
	}
	return title
}

func pageHead(w io.Writer, name, what string) {
	fmt.Fprintf(w, ".\\\" Made by `wcfs manual`.\n.TH %s 1 \"\" wcfs\n.SH NAME\n%s \\- %s\n", strings.ToUpper(roff(name)), roff(name), roff(what))
}

func section(w io.Writer, title string) { fmt.Fprintf(w, ".SH %s\n", title) }

// item is a title, which may have fonts in it, and a text.
func item(w io.Writer, title, text string) { fmt.Fprintf(w, ".TP\n%s\n%s\n", title, roff(text)) }

func exitStatusText(w io.Writer) {
	item(w, "0", "success")
	item(w, "1", "something failed; one line on stderr says what to do")
	item(w, "2", "wrong use")
}

// roff writes text so that troff prints it as it is.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}

func lowerFirst(s string) string {
	if len(s) > 1 && s[1] >= 'a' {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}
