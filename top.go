package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"wcfs/p9srv"
	"wcfs/zcore"
)

// topCmd is `wcfs top TARGET`.
type topCmd struct {
	Target string        `arg:"" help:"Mount directory, or 9P address (unix:PATH, tcp:HOST:PORT, tls:HOST:PORT), where a guest sees itself only."`
	Every  time.Duration `default:"500ms" help:"How often to look."`
	Once   bool          `help:"Print what there is once, without a terminal."`

	Dial p9srv.DialOptions `embed:""`
}

// Run shows who holds what, until q is typed.
func (c *topCmd) Run(p *program) error {
	if err := mustBe(c.Target, "a mount directory or a 9P address", aMount, aNine); err != nil {
		return err
	}
	if c.Every < 10*time.Millisecond {
		return usagef("--every %v: at least 10ms", c.Every)
	}
	m := &topModel{cmd: c, ctx: p.ctx, width: 120, height: 1000, names: map[uint32]string{}}
	if c.Once {
		s, err := m.look()
		if err != nil {
			return err
		}
		m.state = s
		_, err = fmt.Fprintln(p.stdout, m.text())
		return err
	}
	if in, err := os.Stdin.Stat(); err != nil || in.Mode()&os.ModeCharDevice == 0 {
		return usagef("wcfs top needs a terminal; use --once, or `wcfs status`")
	}
	_, err := tea.NewProgram(m, tea.WithContext(p.ctx), tea.WithOutput(p.stdout)).Run()
	if errors.Is(err, tea.ErrInterrupted) || p.ctx.Err() != nil {
		return nil
	}
	return err
}

// topModel is what is on the screen. Bubble Tea calls it from one goroutine.
type topModel struct {
	cmd *topCmd
	ctx context.Context

	state  *zcore.State // the last that came
	before *zcore.State // the one before it
	err    error        // why none comes
	since  time.Time    // since when
	asked  time.Time    // when the look that is under way began; zero: none is

	sort     int    // index in topSorts
	selected string // name of a client
	detail   bool   // show only that
	width    int
	height   int
	names    map[uint32]string
}

type (
	topLook struct { // what came
		state *zcore.State
		err   error
	}
	topTick time.Time
)

// topSorts are the orders of clients; the first is by what they make others wait for.
var topSorts = []struct {
	name string
	less func(a, b zcore.ClientState) int
}{
	{"what others wait for", func(a, b zcore.ClientState) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(b.OwedFor, a.OwedFor), cmp.Compare(b.Owed, a.Owed), strings.Compare(a.Name, b.Name))
	}},
	{"pinned blocks", func(a, b zcore.ClientState) int {
		return cmp.Or(cmp.Compare(b.Pinned, a.Pinned), strings.Compare(a.Name, b.Name))
	}},
	{"watches", func(a, b zcore.ClientState) int {
		return cmp.Or(cmp.Compare(b.Watches, a.Watches), strings.Compare(a.Name, b.Name))
	}},
	{"name", func(a, b zcore.ClientState) int { return strings.Compare(a.Name, b.Name) }},
}

// look reads .wcfs/state once. It may hang as the server does, so it is never called by the goroutine that draws.
func (m *topModel) look() (*zcore.State, error) {
	ctx, cancel := context.WithTimeout(m.ctx, 5*time.Second)
	defer cancel()
	var t target = dirTarget(m.cmd.Target)
	if kindOf(m.cmd.Target) == aNine {
		var err error
		if t, err = dialTarget(ctx, m.cmd.Target, "", m.cmd.Dial); err != nil {
			return nil, err
		}
		defer t.close()
	}
	f, err := t.open(ctx, ".wcfs/state")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 64<<20))
	if err != nil {
		return nil, err
	}
	s := new(zcore.State)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf(".wcfs/state: %w", err)
	}
	return s, nil
}

// Init implements tea.Model.
func (m *topModel) Init() tea.Cmd { return tea.Batch(m.ask(), m.tick()) }

func (m *topModel) tick() tea.Cmd {
	return tea.Tick(m.cmd.Every, func(t time.Time) tea.Msg { return topTick(t) })
}

// ask looks, unless a look is under way.
func (m *topModel) ask() tea.Cmd {
	if !m.asked.IsZero() {
		return nil
	}
	m.asked = time.Now()
	return func() tea.Msg {
		s, err := m.look()
		return topLook{s, err}
	}
}

// Update implements tea.Model.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case topTick:
		return m, tea.Batch(m.ask(), m.tick())
	case topLook:
		m.asked = time.Time{}
		switch {
		case msg.err == nil:
			m.before, m.state, m.err = m.state, msg.state, nil
		case m.err == nil:
			m.since = time.Now()
			fallthrough
		default:
			m.err = msg.err
		}
	case tea.KeyPressMsg:
		return m.key(msg.String())
	}
	return m, nil
}

// key does what a key means.
func (m *topModel) key(k string) (tea.Model, tea.Cmd) {
	switch k {
	case "q", "ctrl+c":
		return m, tea.Quit
	case "s":
		m.sort = (m.sort + 1) % len(topSorts)
	case "enter", "right":
		m.detail = m.selected != ""
	case "esc", "left":
		m.detail = false
	case "up", "k", "down", "j":
		list := m.clients()
		i := slices.IndexFunc(list, func(c zcore.ClientState) bool { return c.Name == m.selected })
		if k == "up" || k == "k" {
			i = max(i-1, 0)
		} else {
			i = min(i+1, len(list)-1)
		}
		if i >= 0 && i < len(list) {
			m.selected = list[i].Name
		}
	}
	return m, nil
}

func (m *topModel) clients() []zcore.ClientState {
	if m.state == nil {
		return nil
	}
	list := slices.Clone(m.state.Clients)
	slices.SortStableFunc(list, topSorts[m.sort].less)
	return list
}

// View implements tea.Model.
func (m *topModel) View() tea.View {
	v := tea.NewView(m.text())
	v.AltScreen = true
	return v
}

// text is the screen.
func (m *topModel) text() string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	switch {
	case m.err != nil:
		add("no answer since %s: %v", m.since.Format(time.TimeOnly), m.err)
	case !m.asked.IsZero() && time.Since(m.asked) > time.Second:
		add("%s has not answered for %s", m.cmd.Target, time.Since(m.asked).Round(100*time.Millisecond))
	}
	if m.state == nil {
		add("waiting for %s", m.cmd.Target)
	} else if m.detail {
		m.addDetail(add)
	} else {
		m.addAll(add)
	}
	for i, line := range lines {
		if r := []rune(line); len(r) > m.width {
			lines[i] = string(r[:max(m.width, 1)])
		}
	}
	return strings.Join(lines[:min(len(lines), max(m.height, 1))], "\n")
}

// addAll shows the server, its clients and its files.
func (m *topModel) addAll(add func(string, ...any)) {
	s := m.state
	h := s.Health
	add("%s since %s  %s", h.State, h.Since.Local().Format(time.DateTime), h.Why)
	add("head %s, %s old, %d behind; %s", s.Head.At, seconds(h.Head.Age), h.Head.Behind, m.rates())
	storage := "answers"
	if !h.Storage.Connected || h.Storage.Error != "" {
		storage = "away: " + h.Storage.Error
	}
	block := s.Storage.Loads["block"]
	add("database %s; blocks loaded %d, %s each; in memory %s", storage, block.Count, seconds(block.Sum/max(float64(block.Count), 1)), size(int64(s.Storage.Blocks.Bytes+s.Storage.Nodes.Bytes)))
	add("")
	add("%-28s %-12s %6s %6s %8s %7s %7s  %s", "CLIENT", "USER", "WAIT", "OWED", "FOR", "PINNED", "WATCHES", "FILE")
	list := m.clients()
	for _, c := range list[:min(len(list), max(m.height/2, 3))] {
		mark := " "
		if c.Name == m.selected {
			mark = ">"
		}
		add("%-28s %-12s %6d %6d %8s %7d %7d  %s", mark+c.Name+" "+c.Command, m.user(c), c.Waiting, c.Owed, seconds(c.OwedFor), c.Pinned, c.Watches, fileOf(c))
	}
	if len(list) == 0 {
		add(" no client has a watch open")
	}
	add("")
	add("%-17s %10s %10s %9s %10s %8s %7s", "BIGFILE", "SIZE", "READ", "COMMITS", "CHANGED", "WATCHES", "OPEN")
	for _, f := range s.Files {
		add("%-17s %10s %10s %9d %10s %8d %7d  %s", f.Oid, size(f.Size), size(f.Bytes), f.Commits, seconds(s.Time.Sub(f.Changed).Seconds()), f.Watches, f.Open, f.Failed)
	}
	add("")
	add("sorted by %s; s sorts otherwise, up and down choose a client, enter looks at it, q ends", topSorts[m.sort].name)
}

// addDetail shows the client that is selected.
func (m *topModel) addDetail(add func(string, ...any)) {
	i := slices.IndexFunc(m.state.Clients, func(c zcore.ClientState) bool { return c.Name == m.selected })
	if i < 0 {
		add("%s is gone; esc goes back", m.selected)
		return
	}
	c := m.state.Clients[i]
	add("%s %s, user %s, over %s since %s", c.Name, c.Command, m.user(c), c.Front, c.Since.Local().Format(time.DateTime))
	add("%d links, %d watches, %d blocks pinned, %d requests under way, %s not read", c.Links, c.Watches, c.Pinned, c.Requests, size(int64(c.Unread)))
	add("%d reads wait for it; it owes %d pins, for %s of %s", c.Waiting, c.Owed, seconds(c.OwedFor), seconds(m.state.Pins.Timeout))
	for _, d := range c.Due {
		add("  pin %s #%d @%s for %s", d.Oid, d.Blk, d.Rev, seconds(d.For))
	}
	for _, w := range c.List {
		add("  watch %s @%s, %d blocks pinned", w.Oid, w.At, w.Pinned)
	}
	add("")
	add("esc goes back, q ends")
}

// rates are what happened between the last two looks.
func (m *topModel) rates() string {
	s, b := m.state, m.before
	if b == nil {
		return fmt.Sprintf("%d commits", s.Head.Commits)
	}
	dt := max(s.Time.Sub(b.Time).Seconds(), 1e-3)
	bytes := func(s *zcore.State) (n int64) {
		for _, f := range s.Fronts {
			n += f.Head.Bytes + f.Rev.Bytes + f.Base.Bytes
		}
		return n
	}
	return fmt.Sprintf("%.1f commits/s, %s/s read", float64(s.Head.Commits-b.Head.Commits)/dt, size(int64(float64(bytes(s)-bytes(b))/dt)))
}

// user is the name of a client's user.
func (m *topModel) user(c zcore.ClientState) string {
	if c.UID == nil {
		return c.Front
	}
	if name, ok := m.names[*c.UID]; ok {
		return name
	}
	name := strconv.FormatUint(uint64(*c.UID), 10)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	m.names[*c.UID] = name
	return name
}

// fileOf is what a client is waited for, else one that it watches.
func fileOf(c zcore.ClientState) string {
	switch {
	case len(c.Due) > 0:
		return fmt.Sprintf("%s #%d", c.Due[0].Oid, c.Due[0].Blk)
	case len(c.List) > 0:
		return c.List[0].Oid
	}
	return ""
}

func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d == 0:
		return "-"
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// size is n bytes for people.
func size(n int64) string {
	v, unit := float64(n), 0
	for v >= 1024 && unit < 5 {
		v, unit = v/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[unit-1])
}
