package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Shares of sentences, in percent, that the documents must not exceed.
const (
	maxHeads    = 0.5 // begin with a pronoun in place of a noun: What is ..., Who may ..., Where it ...
	maxPronouns = 0.6 // name nothing: one that, of it, by itself
)

var (
	headless = regexp.MustCompile(`^(Who|What|Whoever|Whatever|That|Where|Whether)\b`)
	nameless = regexp.MustCompile(`\b(one that|those that|of it|of them|of its own|by itself|of theirs?)\b`)
	bullet   = regexp.MustCompile(`^\s*(?:[-*]|\d+\.) +`)
)

// TestEnglish counts two patterns that make a reader look for the noun which a sentence is about. docs/kernels.md is left
// out: a program writes it.
func TestEnglish(t *testing.T) {
	root := repoRoot(t)
	pages, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	var all, heads, pronouns []string
	for _, page := range append(pages, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md")) {
		if filepath.Base(page) == "kernels.md" {
			continue
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sentences(string(text)) {
			all = append(all, s)
			where := filepath.Base(page) + ": " + s
			if headless.MatchString(s) && !strings.HasSuffix(s, "?") {
				heads = append(heads, where)
			}
			if nameless.MatchString(s) {
				pronouns = append(pronouns, where)
			}
		}
	}
	if len(all) < 500 {
		t.Fatalf("%d sentences found only", len(all))
	}
	report := func(what string, found []string, limit float64) {
		if share := 100 * float64(len(found)) / float64(len(all)); share > limit {
			t.Errorf("%.1f %% of sentences %s, at most %.1f may: name the noun in\n%s", share, what, limit, strings.Join(found, "\n"))
		}
	}
	report("begin with who, what, where or that", heads, maxHeads)
	report(`have "one that", "of it" or "by itself"`, pronouns, maxPronouns)
}

// sentences returns the sentences of four words or more of a page's prose: no headings, tables, code.
func sentences(page string) []string {
	var found, words []string
	end := func() {
		if len(words) >= 4 {
			found = append(found, strings.Join(words, " "))
		}
		words = nil
	}
	code := false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "```") {
			code = !code
			end()
			continue
		}
		if code || strings.TrimSpace(line) == "" || strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "|") || strings.HasPrefix(line, "#") {
			end()
			continue
		}
		if bullet.MatchString(line) {
			end()
		}
		for _, w := range strings.Fields(bullet.ReplaceAllString(line, "")) {
			if len(words) > 0 && strings.ContainsAny(words[len(words)-1][len(words[len(words)-1])-1:], ".!?") && strings.ContainsAny(w[:1], "ABCDEFGHIJKLMNOPQRSTUVWXYZ`(") {
				end()
			}
			words = append(words, w)
		}
	}
	end()
	return found
}

func TestSentences(t *testing.T) {
	got := sentences("# A heading of four words\n\nWhat is it? It is the first of two. `x` is\nthe second.\n- That is an item.\n\n    no code of ours here\n")
	want := []string{"It is the first of two.", "`x` is the second.", "That is an item."}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("sentences are %q, want %q", got, want)
	}
}
