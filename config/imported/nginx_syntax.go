package imported

import (
	"fmt"
	"regexp"
	"strings"
)

// directive is a directive of nginx, as words, with those in its block.
type directive struct {
	line
	in    *directive // whose block has it; nil: http, or none
	block []*directive
	named map[string][]*directive // those of the block; of "allow" also "deny"
	shut  bool                    // something in the block may deny, and does not carry over
	used  bool                    // of an upstream: it is a service
}

// add adds a directive to the block.
func (d *directive) add(c *directive) {
	name := c.word(0)
	if name == "deny" {
		name = "allow"
	}
	if d.named == nil {
		d.named = make(map[string][]*directive)
	}
	c.in, d.block, d.named[name] = d, append(d.block, c), append(d.named[name], c)
}

// all returns the directives of a name that count in a block: its own, or else those around it.
func (d *directive) all(name string) []*directive {
	for d != nil && d.named[name] == nil {
		d = d.in
	}
	if d == nil {
		return nil
	}
	return d.named[name]
}

// value returns the first argument of the last directive of a name that counts, or "".
func (d *directive) value(name string) string {
	if found := d.all(name); len(found) > 0 {
		return found[len(found)-1].word(1)
	}
	return ""
}

// closed reports whether what may deny is in the block, or in one around it.
func (d *directive) closed() bool { return d != nil && (d.shut || d.in.closed()) }

// maxWord limits a word, as in nginx.
const maxWord = 4096

// token is a sign or a word, after blanks and comments.
var token = regexp.MustCompile(`(?s)^(?:\s|#[^\n]*)*(?:([;{}])|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|` +
	`(?:\\.|\$\{|[^\s;{}"'#\\])(?:\\.|\$\{|[^\s;{\\])*)|$)`)

// plain removes the backslashes that nginx removes: those of regular expressions stay.
var plain = strings.NewReplacer(`\"`, `"`, `\'`, `'`, `\\`, `\`, `\t`, "\t", `\r`, "\r", `\n`, "\n")

// parse adds the directives of a file to in. include is called for those of that name. left is how
// many words there may be; it is lowered.
func parse(f File, in *directive, left *int, include func(d *directive) error) error {
	text, number, depth := f.Text, 1, 0
	fail := func(what string) error {
		if strings.Contains(f.Text, "{{") {
			what += "; a template of consul-template cannot be read: give the file that it writes"
		}
		return fmt.Errorf("%s: %s", Place{f.Name, number}, what)
	}
	for d := new(directive); ; {
		found := token.FindStringSubmatchIndex(text)
		if found == nil {
			return fail("a quote or a word that does not end")
		}
		begin := max(found[2], found[4])
		if begin < 0 { // the end
			begin = found[1]
		}
		number += strings.Count(text[:begin], "\n")
		next := text[begin:found[1]]
		text = text[found[1]:]
		switch named := len(d.words) > 0; {
		case found[4] >= 0:
			if *left--; *left < 0 || len(next) > maxWord {
				return errTooLarge
			}
			if !named {
				d.in, d.at = in, Place{f.Name, number}
			}
			number += strings.Count(next, "\n")
			if next[0] == '"' || next[0] == '\'' {
				next = next[1 : len(next)-1]
			}
			d.words = append(d.words, strings.ToValidUTF8(plain.Replace(next), "?"))
		case next == "}" && !named && depth > 0:
			in, depth = in.in, depth-1
		case next == "" && !named && depth == 0:
			return nil
		case next == ";" && named:
			if d.word(0) != "include" {
				in.add(d)
			} else if err := include(d); err != nil {
				return err
			}
			d = new(directive)
		case next == "{" && named:
			if depth++; depth > maxDepth {
				return fail("blocks are too deep")
			}
			if in.add(d); strings.HasSuffix(d.word(0), "_by_lua_block") {
				code := lengthOfCode(text)
				number, text = number+strings.Count(text[:code], "\n"), text[code:]
			}
			in, d = d, new(directive)
		case next == "":
			return fail("it ends within a directive or a block")
		default:
			return fail("unexpected " + next)
		}
	}
}

// lengthOfCode returns how long a block is that has no directives, without its brace at the end.
func lengthOfCode(text string) int {
	for i, open := 0, 0; i < len(text); i++ {
		if text[i] == '{' {
			open++
		} else if text[i] == '}' {
			if open--; open < 0 {
				return i
			}
		}
	}
	return len(text)
}
