package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/alecthomas/kong"
)

// settings are the values of options that come from elsewhere than the command line: from the environment, as
// WCFS_PINTIMEOUT for --pintimeout, and for `wcfs serve` from a TOML file, whose keys are the options' names. The command
// line comes first, then the environment, then the file, then the default.
type settings struct {
	path string // of the file; "" if there is none
	file map[string]any
}

// zurlKey names the database in the file, and with envName in the environment: there ZURL is no argument.
const zurlKey = "zurl"

// loadSettings reads the file that the arguments of `wcfs serve` or the environment name.
func loadSettings(args []string) (*settings, error) {
	s := &settings{}
	if len(args) == 0 || args[0] != "serve" {
		return s, nil
	}
	s.path = configArg(args[1:])
	if s.path == "" {
		s.path = os.Getenv(envName("config"))
	}
	if s.path == "" {
		return s, nil
	}
	if _, err := toml.DecodeFile(s.path, &s.file); err != nil {
		return nil, usagef("configuration %s: %v", s.path, err)
	}
	return s, nil
}

// configArg finds the value of --config before anything else is parsed.
func configArg(args []string) string {
	for i, a := range args {
		if a == "--" {
			break
		}
		if v, ok := strings.CutPrefix(a, "--config="); ok {
			return v
		}
		if a == "--config" && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// envName is the variable of an option.
func envName(option string) string {
	return "WCFS_" + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// Validate refuses keys that no option of `wcfs serve` has.
func (s *settings) Validate(app *kong.Application) error {
	known := []string{zurlKey}
	for _, cmd := range app.Children {
		if cmd.Name == "serve" {
			for _, flag := range flagsOf(cmd) {
				known = append(known, flag.Name)
			}
		}
	}
	for key := range s.file {
		if !slices.Contains(known, key) {
			return s.noOption(key)
		}
	}
	return nil
}

func (s *settings) noOption(key string) error {
	return usagef("configuration %s: %q is no option of `wcfs serve`; the keys are their names without dashes in front, and %s", s.path, key, zurlKey)
}

// Resolve gives kong the value of an option that the command line does not have.
func (s *settings) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if flag.Name == "help" {
		return nil, nil
	}
	if v, ok := os.LookupEnv(envName(flag.Name)); ok {
		return v, nil
	}
	v, ok := s.file[flag.Name]
	if !ok {
		return nil, nil
	}
	switch v.(type) {
	case string, []any:
		return v, nil
	case map[string]any, []map[string]any:
		return nil, s.noOption(flag.Name)
	default: // numbers and booleans, as they would stand on the command line
		return fmt.Sprint(v), nil
	}
}

// zurl is the database where the command line names none.
func (s *settings) zurl() string {
	text, _ := s.file[zurlKey].(string)
	return cmp.Or(os.Getenv(envName(zurlKey)), text)
}

// print writes what would be served and how, as a configuration file: each option with its value, and where that is from.
func (s *settings) print(p *program, ctx *kong.Context, zurl string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s = %s\n", zurlKey, tomlValue(zurl))
	for _, flag := range flagsOf(ctx.Selected()) {
		if flag.Name == "help" || flag.Name == "config" || flag.Name == "print-config" {
			continue
		}
		value := tomlValue(flag.Target.Interface())
		if value == `""` || value == "[]" || value == "0" { // numbers are more than 0 if they are given
			fmt.Fprintf(&b, "# %s is not set\n", flag.Name)
			continue
		}
		fmt.Fprintf(&b, "%s = %s  # %s\n", flag.Name, value, s.origin(ctx, flag))
	}
	_, err := fmt.Fprint(p.stdout, b.String())
	return err
}

// origin tells where an option's value is from.
func (s *settings) origin(ctx *kong.Context, flag *kong.Flag) string {
	for _, path := range ctx.Path {
		if path.Flag == flag && !path.Resolved {
			return "command line"
		}
	}
	if _, ok := os.LookupEnv(envName(flag.Name)); ok {
		return "$" + envName(flag.Name)
	}
	if _, ok := s.file[flag.Name]; ok {
		return s.path
	}
	return "default"
}

// tomlValue writes a value as TOML has it; durations and modes as text.
func tomlValue(v any) string {
	switch v := v.(type) {
	case fmt.Stringer:
		return fmt.Sprintf("%q", v.String())
	case string:
		return fmt.Sprintf("%q", v)
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = fmt.Sprintf("%q", s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	return fmt.Sprint(v)
}
