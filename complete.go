package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// completionCmd is `wcfs completion SHELL`.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints a script that the shell reads to complete subcommands, options and their values.
func (c *completionCmd) Run(p *program, k *kong.Kong) error {
	return map[string]func(io.Writer, *kong.Kong) error{"bash": completeBash, "zsh": completeZsh, "fish": completeFish}[c.Shell](p.stdout, k)
}

// values lists what an option takes, if that is a list.
func values(flag *kong.Flag) []string {
	if flag.Enum == "" {
		return nil
	}
	return flag.EnumSlice()
}

func completeBash(w io.Writer, k *kong.Kong) error {
	var names []string
	var cases strings.Builder
	for _, cmd := range subcommands(k) {
		names = append(names, cmd.Name)
		var flags []string
		for _, flag := range flagsOf(cmd) {
			flags = append(flags, "--"+flag.Name)
			if v := values(flag); v != nil {
				fmt.Fprintf(&cases, "    '%s --%s') COMPREPLY=($(compgen -W '%s' -- \"$cur\")) ;;\n", cmd.Name, flag.Name, strings.Join(v, " "))
			}
		}
		fmt.Fprintf(&cases, "    '%s '*)\n        if [[ $cur == -* ]]; then\n            COMPREPLY=($(compgen -W '%s' -- \"$cur\"))\n        else\n            COMPREPLY=($(compgen -f -- \"$cur\"))\n        fi ;;\n",
			cmd.Name, strings.Join(flags, " "))
	}
	_, err := fmt.Fprintf(w, `# bash completion of wcfs, made by "wcfs completion bash"
_wcfs() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W '%s' -- "$cur"))
        return
    fi
    case "${COMP_WORDS[1]} $prev" in
%s    esac
}
complete -o filenames -F _wcfs wcfs
`, strings.Join(names, " "), cases.String())
	return err
}

func completeZsh(w io.Writer, k *kong.Kong) error {
	quote := strings.NewReplacer("'", `'\''`, "[", `\[`, "]", `\]`, ":", `\:`)
	var names, cases strings.Builder
	for _, cmd := range subcommands(k) {
		fmt.Fprintf(&names, "        '%s:%s'\n", cmd.Name, quote.Replace(cmd.Help))
		fmt.Fprintf(&cases, "    %s) _arguments \\\n", cmd.Name)
		for _, flag := range flagsOf(cmd) {
			equals, value := "=", ":value:_files"
			if v := values(flag); v != nil {
				value = ":value:(" + strings.Join(v, " ") + ")"
			} else if flag.IsBool() || flag.IsCounter() {
				equals, value = "", ""
			}
			fmt.Fprintf(&cases, "        '*--%s%s[%s]%s' \\\n", flag.Name, equals, quote.Replace(flag.Help), value)
		}
		fmt.Fprintf(&cases, "        '*:argument:_files' ;;\n")
	}
	_, err := fmt.Fprintf(w, `#compdef wcfs
# zsh completion of wcfs, made by "wcfs completion zsh"
_wcfs() {
    local -a commands
    commands=(
%s    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    local command=${words[2]}
    shift words
    (( CURRENT-- ))
    case $command in
%s    esac
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _wcfs "$@"
else
    compdef _wcfs wcfs
fi
`, names.String(), cases.String())
	return err
}

func completeFish(w io.Writer, k *kong.Kong) error {
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'" }
	var b strings.Builder
	b.WriteString("# fish completion of wcfs, made by \"wcfs completion fish\"\n")
	for _, cmd := range subcommands(k) {
		fmt.Fprintf(&b, "complete -c wcfs -n __fish_use_subcommand -f -a %s -d %s\n", cmd.Name, quote(cmd.Help))
		for _, flag := range flagsOf(cmd) {
			fmt.Fprintf(&b, "complete -c wcfs -n '__fish_seen_subcommand_from %s' -l %s -d %s", cmd.Name, flag.Name, quote(flag.Help))
			if v := values(flag); v != nil {
				fmt.Fprintf(&b, " -x -a %s", quote(strings.Join(v, " ")))
			} else if !flag.IsBool() && !flag.IsCounter() {
				b.WriteString(" -r")
			}
			b.WriteByte('\n')
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
