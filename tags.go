package main

import (
	"bufio"
	"io"
	"os"
	"strings"
)

// maxTags bounds how much of a file of tags is read, in bytes.
const maxTags = 1 << 20

// tagsOf returns what finds a tag in a file, which is read anew each time: NAME and a tid or moment on a line; '#' begins
// a comment. Without a file there are no tags.
func tagsOf(file string) func(name string) (string, bool) {
	if file == "" {
		return nil
	}
	return func(name string) (moment string, ok bool) {
		f, err := os.Open(file)
		if err != nil {
			return "", false
		}
		defer f.Close()
		for sc := bufio.NewScanner(io.LimitReader(f, maxTags)); sc.Scan(); {
			line, _, _ := strings.Cut(sc.Text(), "#")
			if w := strings.Fields(line); len(w) == 2 && w[0] == name {
				moment, ok = strings.TrimPrefix(w[1], "@"), true
			}
		}
		return moment, ok
	}
}
