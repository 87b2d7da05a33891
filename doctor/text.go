package doctor

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"sluice/cli/terminal"
)

const (
	// textWidth is the maximum length of a line of prose, in characters.
	textWidth = 90

	// textItems is the maximum number of findings of a kind.
	textItems = 20
)

// WriteText writes the report for people: findings with the same text together, at most
// 20 of a kind.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	a := r.Agent
	fmt.Fprintf(&b, "Consul %s at %s", terminal.PrintableLong(cmp.Or(a.Version, "(version not told)")), terminal.PrintableLong(a.URL))
	if a.Node != "" {
		fmt.Fprintf(&b, ", node %s of %s", terminal.PrintableLong(a.Node), terminal.PrintableLong(a.Datacenter))
	}
	fmt.Fprintf(&b, ", leader %s", terminal.PrintableLong(cmp.Or(a.Leader, "unknown")))
	if a.Token != "" {
		fmt.Fprintf(&b, ", token %q", terminal.PrintableLong(a.Token))
	}
	l := r.Looked
	queries := fmt.Sprintf("%d queries", l.Queries) // never one
	fmt.Fprintf(&b, ".\nLooked at %s of %s on %s: %s, %d KB, %d ms.\n", plural(l.Instances, "instance"),
		plural(l.Services, "service"), plural(l.Nodes, "node"), queries, (l.Bytes+1023)>>10, l.Millis)
	for rest := r.Findings; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].alike(rest[0]) {
			n++
		}
		writeKind(&b, rest[:n])
		rest = rest[n:]
	}
	b.WriteString("\n" + r.verdict() + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) verdict() string {
	c := r.Count
	if len(r.Findings) == 0 {
		return "No findings."
	}
	return fmt.Sprintf("%s, %s, %s.", plural(c[SeverityError], "error"), plural(c[SeverityWarning], "warning"), plural(c[SeverityNotice], "notice"))
}

// alike reports whether f and o share their texts.
func (f Finding) alike(o Finding) bool {
	return f.Severity == o.Severity && f.Code == o.Code && f.Why == o.Why && f.Do == o.Do && f.Policy == o.Policy
}

func writeKind(b *strings.Builder, findings []Finding) {
	first := findings[0]
	fmt.Fprintf(b, "\n%s %s\n", strings.ToUpper(string(first.Severity)), first.Code)
	for _, f := range findings[:min(len(findings), textItems)] {
		indent := "  "
		if subject := f.subject(); subject != "" {
			fmt.Fprintf(b, "  %s\n", terminal.PrintableLong(subject))
			indent = "    "
		}
		wrap(b, indent, indent, f.Seen)
		if f.Command != "" {
			fmt.Fprintf(b, "%s$ %s\n", indent, terminal.PrintableLong(f.Command))
		}
	}
	if more := len(findings) - textItems; more > 0 {
		fmt.Fprintf(b, "  … and %d more: --json shows all\n", more)
	}
	wrap(b, "  Why: ", "       ", first.Why)
	wrap(b, "  Do:  ", "       ", first.Do)
	label := "  ACL: "
	for line := range strings.Lines(first.Policy) {
		b.WriteString(label + terminal.PrintableLong(strings.TrimSuffix(line, "\n")) + "\n")
		label = "       "
	}
}

// subject names the subject of f: "star star-1 on node a, 10.0.0.1:80".
func (f Finding) subject() string {
	words := strings.TrimSpace(f.Service + " " + f.ID)
	if f.Node != "" && f.ID != "" {
		words += " on node " + f.Node
	}
	if f.Address != "" {
		words += ", " + f.Address
	}
	return words
}

func wrap(b *strings.Builder, first, others, text string) {
	line, width := first, utf8.RuneCountInString(first)
	begin := true
	for word := range strings.FieldsSeq(terminal.PrintableLong(text)) {
		n := utf8.RuneCountInString(word)
		switch {
		case begin:
			begin = false
		case width+1+n > textWidth:
			b.WriteString(line + "\n")
			line, width = others, utf8.RuneCountInString(others)
		default:
			line += " "
			width++
		}
		line += word
		width += n
	}
	b.WriteString(line + "\n")
}
