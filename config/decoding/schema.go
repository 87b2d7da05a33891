package decoding

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
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

// SetDefault sets the key at a path below the struct that v points to.
func (s *Schema) SetDefault(v any, key string) {
	field, absent := s.below(v, key)
	field.Set(absent)
}

// IsDefault reports whether the key at a path below the struct that v points to has its default.
func (s *Schema) IsDefault(v any, key string) bool {
	field, absent := s.below(v, key)
	return reflect.DeepEqual(field.Interface(), absent.Interface())
}

// below returns the value of a key in sections that are always there, and its default.
func (s *Schema) below(v any, key string) (field, absent reflect.Value) {
	field = reflect.ValueOf(v).Elem()
	for name := range strings.SplitSeq(key, ".") {
		o := s.objectOf(field.Type())
		at := o.fields[slices.Index(o.names(), name)].index
		field, absent = field.FieldByIndex(at), o.absent.FieldByIndex(at)
	}
	return field, absent
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
