package top

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"sluice/cli/terminal"
	"sluice/observe/events"
)

// marks are words of one character for each health: colour is never the only sign.
var marks = [...]string{well: " ", impaired: "-", broken: "!"}

// Styles of SGR (ECMA-48, 8.3.117). Bubble Tea leaves out what the terminal or NO_COLOR
// does not allow.
const (
	plain   = "\x1b[m"
	bold    = "\x1b[1m"
	faint   = "\x1b[2m"
	reverse = "\x1b[7m"
	red     = "\x1b[31m"
	yellow  = "\x1b[33m"
)

var styles = [...]string{well: "", impaired: yellow, broken: red}

// eventsShown is the number of events below the table, if the screen has room for them.
const eventsShown = 6

func (m model) View() tea.View {
	view := tea.NewView(strings.Join(m.lines(), "\n"))
	view.AltScreen = true
	view.WindowTitle = "sluice " + m.address
	return view
}

// lines returns the lines of the screen, at most as many and as wide as it has.
func (m model) lines() []string {
	lines := []string{m.heading(), ""}
	rows, titles := m.rows(), serviceColumns
	if m.service != "" {
		titles = peerColumns
	}
	place, shown := m.place(rows), m.rowsShown()
	first := min(max(0, place-shown/2), max(0, len(rows)-shown))
	visible := rows[first:min(len(rows), first+shown)]
	widths := widthsOf(titles, visible)
	names := make([]string, len(titles))
	for i, title := range titles {
		names[i] = strings.TrimPrefix(title, "<")
	}
	lines = append(lines, bold+m.cut(line(names, widths, titles))+plain)
	for i, r := range visible {
		style := styles[r.health]
		if first+i == place {
			style += reverse
		}
		lines = append(lines, style+m.cut(line(r.cells, widths, titles))+plain)
	}
	if len(rows) == 0 {
		lines = append(lines, m.cut(m.nothing()))
	}
	for len(lines) < m.height-1-m.eventLines() {
		lines = append(lines, "")
	}
	lines = append(lines, m.eventList()...)
	lines = append(lines, m.footing())
	return lines[:min(len(lines), max(1, m.height))]
}

// heading says what is asked, and what is wrong with it.
func (m model) heading() string {
	if m.problem != nil {
		return red + bold + m.cut("! "+terminal.Printable(m.problem.Error(), 500)) + plain
	}
	if m.service != "" {
		return bold + m.cut("sluice "+m.address+"  service "+terminal.Printable(m.service, 100)) + plain
	}
	up, all, requests := 0, 0, 0.
	for _, s := range m.now.Services {
		up += s.Eligible
		for _, n := range s.Peers {
			all += n
		}
	}
	for _, r := range serviceRows(m.now, m.before) {
		requests += r.order[byRate]
	}
	return bold + m.cut(fmt.Sprintf("sluice %s  services %d  peers %d of %d get requests  %s req/s",
		m.address, len(m.now.Services), up, all, perSecond(requests))) + plain
}

// nothing says why there is no row.
func (m model) nothing() string {
	switch {
	case m.filter != "":
		return "nothing matches " + terminal.Printable(m.filter, 100)
	case m.now.At.IsZero() || m.service != m.asked:
		return "…"
	case m.service != "":
		for _, s := range m.now.Services {
			if s.Service == m.service && s.Watch.Pending() {
				return terminal.NothingKnown(s.Service, s.Watch.Source, m.now.At.Sub(s.Watch.Since), s.Watch.LastError)
			}
		}
		return "no peers"
	}
	return "no services"
}

func (m model) footing() string {
	if m.typing {
		return m.cut("filter: " + m.filter + "▏  enter keeps it, esc clears it")
	}
	keys := "q quit  ↑↓ select  enter peers"
	if m.service != "" {
		keys = "q quit  ↑↓ select  esc services"
	}
	keys += "  / filter  s sort: " + orderNames[m.order]
	if m.filter != "" {
		keys += "  filter: " + m.filter
	}
	return faint + m.cut(keys) + plain
}

// eventList returns the lines of the latest events, the newest last, below a heading.
func (m model) eventList() []string {
	if m.eventLines() == 0 {
		return nil
	}
	lines := []string{"", bold + m.cut("LATEST EVENTS") + plain}
	list := m.now.Events
	list = list[max(0, len(list)-eventsShown):]
	for _, e := range list {
		mark, style := " ", ""
		if e.Level == events.Warning {
			mark, style = "!", yellow
		}
		lines = append(lines, style+m.cut(fmt.Sprintf("%s %s %s  %s", mark, e.Time.Local().Format("15:04:05"), terminal.Printable(e.Service, 40), terminal.PrintableLong(e.Text)))+plain)
	}
	for len(lines) < m.eventLines() {
		lines = append(lines, "")
	}
	return lines
}

// eventLines returns the number of lines for events: none on a small screen.
func (m model) eventLines() int {
	if m.height < 20 {
		return 0
	}
	return eventsShown + 2
}

// rowsShown returns how many rows fit on the screen.
func (m model) rowsShown() int { return max(1, m.height-4-m.eventLines()) }

// cut shortens a line to the width of the screen.
func (m model) cut(s string) string { return ansi.Truncate(s, max(1, m.width), "…") }

// widthsOf returns the width of each column.
func widthsOf(titles []string, rows []row) []int {
	widths := make([]int, len(titles))
	for i, title := range titles {
		widths[i] = ansi.StringWidth(strings.TrimPrefix(title, "<"))
		for _, r := range rows {
			widths[i] = max(widths[i], ansi.StringWidth(r.cells[i]))
		}
	}
	return widths
}

// line joins cells, aligned as the titles say.
func line(cells []string, widths []int, titles []string) string {
	var b strings.Builder
	for i, cell := range cells {
		space := strings.Repeat(" ", max(0, widths[i]-ansi.StringWidth(cell)))
		if strings.HasPrefix(titles[i], "<") {
			b.WriteString(space + cell)
		} else {
			b.WriteString(cell + space)
		}
		if i < len(cells)-1 {
			b.WriteString("  ")
		}
	}
	return strings.TrimRight(b.String(), " ")
}
