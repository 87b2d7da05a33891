package top

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
)

// Run shows what ask answers, every second, until the user quits or ctx ends. out must be a
// terminal. address names the sluice that is asked.
func Run(ctx context.Context, address string, ask Ask, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The reading under way ends with ctx, and its answer is not waited for.
	_, err := tea.NewProgram(newModel(ctx, address, ask), tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out)).Run()
	if ctx.Err() != nil || errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	return err
}

// every is the time between two readings.
const every = time.Second

// model is the state of the screen. Bubble Tea calls its methods one at a time, and each
// returns the next state.
type model struct {
	ctx     context.Context // of readings
	address string
	ask     Ask

	width, height int
	now, before   Reading
	problem       error // of the latest reading; the one before stays on the screen

	service  string // whose peers are shown; "": all services
	asked    string // the service of now and before
	selected string // key of a row
	filter   string
	typing   bool // the keys change the filter
	order    int
	turn     int // the number of the reading that is awaited
}

func newModel(ctx context.Context, address string, ask Ask) model {
	return model{ctx: ctx, address: address, ask: ask, width: 80, height: 24}
}

// Messages.
type (
	// answer is the answer to a reading.
	answer struct {
		turn    int
		service string
		reading Reading
		err     error
	}
	// next asks for another reading.
	next struct{ turn int }
)

func (m model) Init() tea.Cmd { return m.read() }

// read returns a command that takes the reading of the present turn.
func (m model) read() tea.Cmd {
	return func() tea.Msg {
		reading, err := m.ask(m.ctx, m.service)
		return answer{m.turn, m.service, reading, err}
	}
}

func (m model) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch message := message.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = message.Width, message.Height
	case next:
		if message.turn == m.turn {
			return m, m.read()
		}
	case answer:
		return m.take(message)
	case tea.KeyPressMsg:
		if m.typing {
			return m.edit(message), nil
		}
		return m.press(message.String())
	}
	return m, nil
}

// take shows an answer, and has the next reading taken.
func (m model) take(a answer) (tea.Model, tea.Cmd) {
	if a.turn != m.turn {
		return m, nil // another service has been chosen meanwhile
	}
	if m.problem = a.err; a.err == nil {
		m.before, m.now = m.now, a.reading
		if a.service != m.asked {
			m.asked, m.before.Peers = a.service, nil
		}
	}
	m.turn++
	turn := m.turn
	return m, tea.Tick(every, func(time.Time) tea.Msg { return next{turn} })
}

// press does what a key means.
func (m model) press(key string) (tea.Model, tea.Cmd) {
	switch key {
	case "q", "ctrl+c":
		return m, tea.Quit
	case "up", "k":
		m.move(-1)
	case "down", "j":
		m.move(1)
	case "pgup":
		m.move(-m.rowsShown())
	case "pgdown":
		m.move(m.rowsShown())
	case "home", "g":
		m.move(-1 << 30)
	case "end", "G":
		m.move(1 << 30)
	case "s":
		m.order = (m.order + 1) % numOrders
	case "/":
		m.typing = true
	case "enter", "right", "l":
		if rows := m.rows(); m.service == "" && len(rows) > 0 {
			return m.show(rows[m.place(rows)].key)
		}
	case "esc", "left", "h":
		if m.filter != "" && key == "esc" {
			m.filter = ""
		} else if m.service != "" {
			return m.show("")
		}
	}
	return m, nil
}

// show shows the peers of a service, or all services.
func (m model) show(service string) (tea.Model, tea.Cmd) {
	m.selected, m.service, m.filter = m.service, service, ""
	m.turn++ // the reading under way is of no use
	return m, m.read()
}

// edit changes the filter as a key says.
func (m model) edit(key tea.KeyPressMsg) model {
	switch key.String() {
	case "enter":
		m.typing = false
	case "esc", "ctrl+c":
		m.typing, m.filter = false, ""
	case "backspace":
		_, size := utf8.DecodeLastRuneInString(m.filter)
		m.filter = m.filter[:len(m.filter)-size]
	default:
		m.filter += key.Text
	}
	return m
}

// rows returns the rows that the filter selects, in their order.
func (m model) rows() []row {
	switch {
	case m.service == "":
		return selectRows(serviceRows(m.now, m.before), m.filter, m.order)
	case m.service == m.asked:
		return selectRows(peerRows(m.now, m.before), m.filter, m.order)
	}
	return nil // not yet read
}

// place returns the index of the selected row, or 0 if it is not there.
func (m model) place(rows []row) int {
	return max(0, slices.IndexFunc(rows, func(r row) bool { return r.key == m.selected }))
}

// move selects the row that is some rows further down.
func (m *model) move(by int) {
	if rows := m.rows(); len(rows) > 0 {
		m.selected = rows[min(max(m.place(rows)+by, 0), len(rows)-1)].key
	}
}
