// Package reference reads the page that explains the keys of the configuration: a table for each
// section, with a row for each key.
package reference

import (
	"regexp"
	"strings"

	"sluice/config/decoding"
)

// Row is what the page says about a key, in Markdown.
type Row struct {
	Key              string // NAME stands for a name that users choose, [] for an entry of a list
	Default, Allowed string
	SetBy            string // who may besides the file, in the letters of the page; "": nobody
	Meaning          string

	Prefix string // of Key, which the row leaves out
	Line   int    // of the page, from 0
}

// firstSection begins what the page says about keys.
const firstSection = "\n## `log`"

// beginning is a line that says what the keys of a section begin with: their rows leave it out.
var beginning = regexp.MustCompile("^The keys begin with `([^`]+)`")

// Rows returns the rows of the page, in their order.
func Rows(page string) []Row {
	var rows []Row
	before, _, _ := strings.Cut(page, firstSection)
	first, prefix := strings.Count(before, "\n")+1, ""
	for n, line := range strings.Split(page, "\n") {
		if n < first {
			continue
		}
		if strings.HasPrefix(line, "## ") {
			prefix = ""
		}
		if found := beginning.FindStringSubmatch(line); found != nil {
			prefix = found[1]
		}
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "| "), " |"), " | ")
		if len(cells) < 4 {
			continue
		}
		r := Row{Key: prefix + strings.Trim(cells[0], "`"), Default: cells[1], Allowed: cells[2], Meaning: cells[len(cells)-1], Prefix: prefix, Line: n}
		if len(cells) > 4 {
			r.SetBy = cells[3]
		}
		rows = append(rows, r)
	}
	return rows
}

// likeOthers are sections whose keys, but for those with rows of their own, are keys of others.
var likeOthers = []struct{ section, other string }{
	{"actions.NAME", "routes[]"}, {"defaults.route", "routes[]"}, {"defaults.service", "services.NAME"},
}

// Meanings returns a function for the meaning of a key, with names and indexes as a configuration
// has them, or with NAME and [] as in a row; "": the page has none.
func Meanings(rows []Row) func(key string) string {
	keys, exact := make([][]string, len(rows)), make(map[string]string, len(rows))
	for i, r := range rows {
		keys[i] = parts(r.Key)
		exact[strings.Join(keys[i], ".")] = r.Meaning
	}
	find := func(wanted []string) string {
		if meaning, ok := exact[strings.Join(wanted, ".")]; ok {
			return meaning
		}
		for i, has := range keys {
			if len(has) == len(wanted) && begins(has, wanted) {
				return rows[i].Meaning
			}
		}
		return ""
	}
	return func(key string) string {
		wanted := parts(key)
		meaning := find(wanted)
		for _, like := range likeOthers {
			if section := parts(like.section); meaning == "" && len(wanted) > len(section) && begins(section, wanted[:len(section)]) {
				meaning = find(append(parts(like.other), wanted[len(section):]...))
			}
		}
		return meaning
	}
}

// Below returns the row of a key and those of the keys below it. In key stand names of a
// configuration or NAME, and [], an index or nothing for an entry of a list. A key that no section
// begins with is looked for in all of them: retry.attempts is services.NAME.retry.attempts.
func Below(rows []Row, key string) (below []Row) {
	wanted := parts(key)
	for _, r := range rows {
		if begins(parts(r.Key), wanted) {
			below = append(below, r)
		}
	}
	if len(below) > 0 {
		return below
	}
	for _, like := range likeOthers {
		if section := parts(like.section); len(wanted) > len(section) && begins(section, wanted[:len(section)]) {
			return Below(rows, like.other+"."+strings.Join(wanted[len(section):], "."))
		}
	}
	for _, r := range rows {
		has := parts(r.Key)
		for at := range has {
			if has[at] == wanted[0] && begins(has[at:], wanted) {
				below = append(below, r)
				break
			}
		}
	}
	return below
}

// Suggest returns the known key that an unknown one may stand for; "": none resembles it.
func Suggest(rows []Row, key string) string {
	wanted := parts(key)
	for at := len(wanted) - 1; at >= 0; at-- {
		var next []string
		for _, r := range rows {
			if has := parts(r.Key); len(has) > at && begins(has, wanted[:at]) {
				next = append(next, has[at])
			}
		}
		if word := decoding.Suggest(wanted[at], next); word != "" {
			return strings.Join(append(wanted[:at:at], word), ".")
		}
	}
	return ""
}

// entry is the mark of an entry of a list.
var entry = regexp.MustCompile(`\[\d*\]`)

// parts returns the names that a key consists of, without marks of lists.
func parts(key string) []string { return strings.Split(entry.ReplaceAllString(key, ""), ".") }

// begins reports whether a key begins with the wanted parts.
func begins(has, wanted []string) bool {
	for n, part := range wanted {
		if n == len(has) || has[n] != part && has[n] != "NAME" {
			return false
		}
	}
	return true
}
