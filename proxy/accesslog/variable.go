package accesslog

import (
	"reflect"
	"strings"
	"time"
	"unsafe"
)

// A variable is a field of an entry, by its place in Entry: with a function to read it, each
// entry would be allocated.
type variable struct {
	name   string
	kind   kind
	offset uintptr
	always bool   // in lines of JSON also if it is zero
	http   bool   // never for TCP
	word   bool   // without blanks in templates
	prefix string // of its member in a line of JSON
}

// kind is the type of a variable.
type kind uint8

const (
	kindNone kind = iota
	kindField
	kindTime
	kindTimeCombined
	kindText // string or []byte
	kindInt
	kindDuration
	kindTries
)

// variables are the variables of lines of JSON, in their order.
var variables = func() (all []variable) {
	kinds := map[reflect.Type]kind{
		reflect.TypeFor[time.Time](): kindTime, reflect.TypeFor[[]byte](): kindText, reflect.TypeFor[string](): kindText,
		reflect.TypeFor[int64](): kindInt, reflect.TypeFor[time.Duration](): kindDuration, reflect.TypeFor[[]Try](): kindTries,
	}
	quotes := map[kind]string{kindTime: `"`, kindText: `"`}
	start := byte('{')
	for field := range reflect.TypeFor[Entry]().Fields() {
		tag, ok := field.Tag.Lookup("log")
		if !ok {
			continue
		}
		v := variable{kind: kinds[field.Type], offset: field.Offset}
		var option string
		v.name, option, _ = strings.Cut(tag, ",")
		v.always, v.http, v.word = option == "always" || option == "http", option == "http", option == "word"
		v.prefix = string(start) + `"` + v.name + `":` + quotes[v.kind]
		all = append(all, v)
		start = ','
	}
	return all
}()

// byName has the variables of templates: the variables of JSON, and $time_combined.
var byName = func() map[string]variable {
	all := map[string]variable{"time_combined": {name: "time_combined", kind: kindTimeCombined, offset: unsafe.Offsetof(Entry{}.Time)}}
	for _, v := range variables {
		all[v.name] = v
	}
	return all
}()

// IsVariable reports whether a template can contain the variable name, other than the fields
// of a request.
func IsVariable(name string) bool { return byName[name].kind != kindNone }

// at returns the field of e, whose type kind says.
func at[T any](v *variable, e *Entry) T { return *(*T)(unsafe.Add(unsafe.Pointer(e), v.offset)) }

// text returns the value of a variable of kindText. A []byte begins with the words of a string.
func (v *variable) text(e *Entry) []byte { return octets(at[string](v, e)) }
