package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"wcfs/zcore"
)

// Keys sort, choose and look; what others wait for comes first.
func TestTopKeys(t *testing.T) {
	zero := uint32(0)
	m := &topModel{cmd: &topCmd{Target: "/mnt/x"}, width: 200, height: 100, names: map[uint32]string{0: "admin"}}
	m.Update(topLook{state: &zcore.State{Clients: []zcore.ClientState{
		{Name: "pid 1", Pinned: 9, Watches: 1},
		{Name: "pid 2", UID: &zero, Command: "sleeper", Owed: 1, OwedFor: 0.4, Waiting: 2, Due: []zcore.PinDue{{Oid: "0000000000000007", Blk: 5, Rev: "head", For: 0.4}}},
	}}})
	first := func() string {
		_, rest, _ := strings.Cut(m.text(), "FILE\n")
		return strings.TrimSpace(strings.Split(rest, "\n")[0])
	}
	if line := first(); !strings.HasPrefix(line, "pid 2 sleeper ") || !strings.Contains(line, " admin ") || !strings.Contains(line, "0000000000000007 #5") {
		t.Errorf("first is %q", line)
	}
	press := func(k string) {
		key := tea.Key{Text: k}
		switch k {
		case "enter":
			key = tea.Key{Code: tea.KeyEnter}
		case "esc":
			key = tea.Key{Code: tea.KeyEscape}
		case "down":
			key = tea.Key{Code: tea.KeyDown}
		}
		m.Update(tea.KeyPressMsg(key))
	}
	press("s")
	if line := first(); !strings.HasPrefix(line, "pid 1") {
		t.Errorf("by pinned blocks first is %q", line)
	}
	press("down")
	press("down")
	press("enter")
	if text := m.text(); !strings.Contains(text, "2 reads wait for it; it owes 1 pins, for 400ms") || !strings.Contains(text, "pin 0000000000000007 #5 @head") {
		t.Errorf("detail: %s", text)
	}
	press("esc")
	if !strings.Contains(m.text(), "CLIENT") {
		t.Error("esc does not go back")
	}
	m.Update(topLook{err: errors.New("gone on purpose")})
	if text := m.text(); !strings.Contains(text, "no answer since ") || !strings.Contains(text, "gone on purpose") {
		t.Errorf("without an answer: %s", text)
	}
	m.err, m.asked = nil, time.Now().Add(-2*time.Second)
	if text := m.text(); !strings.Contains(text, "/mnt/x has not answered for 2s") {
		t.Errorf("while it hangs: %s", text)
	}
	if _, cmd := m.Update(tea.KeyPressMsg(tea.Key{Text: "q"})); cmd == nil {
		t.Error("q does not end it")
	}
}
