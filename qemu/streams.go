package qemu

import (
	"bytes"
	"io"
)

// copyStream copies what the program writes, up to the mark that its init writes in the end, and closes ended
// then. It goes on reading after the mark, and when the writer fails, which it reports once by failed: a guest
// must not hang because of that.
func copyStream(w io.Writer, r io.Reader, mark string, ended chan<- struct{}, failed func(error)) {
	var kept []byte // the beginning of a mark, or not
	more := true
	give := func(b []byte) {
		if len(b) > 0 && w != nil {
			if _, err := w.Write(b); err != nil {
				w = nil
				failed(err)
			}
		}
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if more {
			var out []byte
			var found bool
			if out, kept, found = splitAtMark(append(kept, buf[:n]...), mark); found || err != nil {
				if !found {
					out = append(out, kept...)
				}
				more = false
			}
			give(out)
			if !more {
				close(ended)
			}
		}
		if err != nil {
			return
		}
	}
}

// splitAtMark cuts data before a mark, or before what may be the beginning of one.
func splitAtMark(data []byte, mark string) (before, rest []byte, found bool) {
	if i := bytes.Index(data, []byte(mark)); i >= 0 {
		return data[:i], nil, true
	}
	for n := min(len(mark)-1, len(data)); n > 0; n-- {
		if bytes.HasSuffix(data, []byte(mark[:n])) {
			return data[:len(data)-n], bytes.Clone(data[len(data)-n:]), false
		}
	}
	return data, nil, false
}
