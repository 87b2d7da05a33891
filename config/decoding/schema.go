package decoding

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
)

// A Schema is what a decoder knows besides the types of structs. It does not change.
type Schema struct {
	Formats map[string]Format // by their names in the tag "format"
	// OtherNames are keys by the names that other programs have for them. Errors suggest them.
	OtherNames map[string]string
	// IsVariable reports whether ${NAME} is for who uses a text, and no variable of the
	// environment.
	IsVariable func(name string) bool
	// Nested limits structs that contain themselves: an alias can make many out of a few lines.
	Nested map[reflect.Type]Nesting

	objects sync.Map // the results of objectOf: a configuration has thousands of equal structs
}

// Nesting are the limits of a struct that contains itself, with all below it.
type Nesting struct {
	Depth, Count     int
	TooDeep, TooMany string // errors
}

// EntryFormats is a type of mappings whose entries have formats of their own.
type EntryFormats interface {
	// EntryFormat returns the format of the value of an entry, as in the tag "format".
	EntryFormat(name string) string
}

// object describes a struct with keys, for the decoder. It does not change.
type object struct {
	fields  []field       // in the order of the struct
	absent  reflect.Value // with the defaults of all keys
	nesting *Nesting      // nil: no limits

	// The fields for the place and for the variables, as in reflect.Value.FieldByIndex; nil: none.
	origin, variables []int
}

type field struct {
	name     string
	index    []int // as in reflect.Value.FieldByIndex
	rules    Rules
	required bool
}

// objectOf returns the description of a struct with keys.
func (s *Schema) objectOf(t reflect.Type) *object {
	if o, ok := s.objects.Load(t); ok {
		return o.(*object)
	}
	o := &object{absent: reflect.New(t).Elem()}
	for _, f := range Fields(t) {
		o.fields = append(o.fields, field{f.Tag.Get("key"), f.Index, s.Rules(f.Tag), f.Tag.Get("required") != ""})
		s.setDefault(o.absent.FieldByIndex(f.Index), &o.fields[len(o.fields)-1].rules)
	}
	for _, f := range reflect.VisibleFields(t) {
		switch {
		case f.Tag.Get("origin") != "":
			o.origin = f.Index
		case f.Type == reflect.TypeFor[Variables]():
			o.variables = f.Index
		}
	}
	if nesting, limited := s.Nested[t]; limited {
		o.nesting = &nesting
	}
	s.objects.Store(t, o)
	return o
}

// names returns the names of all keys.
func (o *object) names() []string {
	names := make([]string, len(o.fields))
	for i, f := range o.fields {
		names[i] = f.name
	}
	return names
}

// Keys returns the names of all keys of a struct, in their order.
func (s *Schema) Keys(t reflect.Type) []string { return s.objectOf(t).names() }

// Fields returns the fields of a struct that have keys, also fields of embedded structs.
func Fields(t reflect.Type) []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Anonymous || f.Tag.Get("key") == "-" })
}

// SetDefaults sets the struct that v points to to the defaults of its keys.
func (s *Schema) SetDefaults(v any) { s.setDefault(reflect.ValueOf(v).Elem(), nil) }

// Overlay sets the keys that are given in the struct that to points to as they are in from, which
// points to another.
func (s *Schema) Overlay(to, from any, given func(key string) bool) {
	target, source := reflect.ValueOf(to).Elem(), reflect.ValueOf(from).Elem()
	for _, f := range s.objectOf(target.Type()).fields {
		if given(f.name) {
			target.FieldByIndex(f.index).Set(source.FieldByIndex(f.index))
		}
	}
}

// setDefault sets v to the value of an absent key.
func (s *Schema) setDefault(v reflect.Value, r *Rules) {
	switch Kind(v.Type()) {
	case reflect.Struct:
		v.Set(s.objectOf(v.Type()).absent)
	case reflect.Pointer, reflect.Slice, reflect.Map: // optional
	default:
		if r.Default == "" { // optional, or reported as missing
			return
		}
		parsed, ok := r.parse(r.Default, v.Type())
		if !ok {
			panic(fmt.Sprintf("BUG: decoding: default %q of a %s is not allowed", r.Default, v.Type()))
		}
		v.Set(parsed)
	}
}
