package fields

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/quic-go/qpack"
	"golang.org/x/net/http2/hpack"

	"sluice/test/verify"
)

// section returns a section without a need for insertions.
func section(fields ...byte) []byte { return append(AppendQPACKPrefix(nil), fields...) }

// otherQPACK returns what the decoder of quic-go makes of a section.
func otherQPACK(section []byte) (list []hpack.HeaderField, err error) {
	for next := qpack.NewDecoder().Decode(section); ; {
		switch f, err := next(); err {
		case nil:
			list = append(list, hpack.HeaderField{Name: f.Name, Value: f.Value})
		case io.EOF:
			return list, nil
		default:
			return list, err
		}
	}
}

func TestStaticTableOfQPACK(t *testing.T) {
	for index, want := range qpackTable {
		list, err := otherQPACK(appendInteger(section(), 0xc0, 6, index))
		verify.Require(t, err == nil && len(list) == 1, "%d: %q, %v", index, list, err)
		verify.Equal(t, staticField{list[0].Name, list[0].Value}, want, "entry %d", index)
	}
	_, err := otherQPACK(appendInteger(section(), 0xc0, 6, len(qpackTable)))
	verify.That(t, err != nil, "there are more than %d entries", len(qpackTable))
}

// Every representation of RFC 9204, section 4.5, and every way in which it can be wrong.
func TestDecodesQPACK(t *testing.T) {
	huffman := func(first byte, prefix uint8, text string) []byte {
		return hpack.AppendHuffmanString(appendInteger(nil, first, prefix, int(hpack.HuffmanEncodeLength(text))), text)
	}
	longName, longValue := strings.Repeat("n", 300), strings.Repeat("v", 3000)
	long := appendPlain(append(appendInteger(section(), 0x20, 3, 300), longName...), []byte(longValue))
	for _, test := range []struct {
		what    string
		section []byte
		want    string // "name=value" fields, separated by "|"
		err     error
	}{
		{what: "no field", section: section()},
		{what: "nothing", section: nil, err: ErrCompression},
		{what: "half a prefix", section: []byte{0}, err: ErrCompression},
		{what: "required insertions", section: []byte{1, 0, 0xc0 | 17}, err: ErrCompression},
		{what: "many required insertions", section: []byte{0xff, 0, 0, 0xc0 | 17}, err: ErrCompression},
		{what: "half required insertions", section: []byte{0xff, 0x80}, err: ErrCompression},
		{what: "a base", section: []byte{0, 5, 0xc0 | 17}, want: ":method=GET"},
		{what: "a long base", section: []byte{0, 0x7f, 0x80, 0x01, 0xc0 | 17}, want: ":method=GET"},
		{what: "half a base", section: []byte{0, 0x7f, 0x80}, err: ErrCompression},
		{what: "a negative base", section: []byte{0, 0x80, 0xc0 | 17}, err: ErrCompression},

		{what: "indexed", section: section(0xc0, 0xc0|17, 0xff, 0), want: ":authority=|:method=GET|:status=100"},
		{what: "the last index", section: section(0xff, 98-63), want: "x-frame-options=sameorigin"},
		{what: "an index too high", section: section(0xff, 99-63), err: ErrCompression},
		{what: "an index of six bytes", section: section(0xff, 0x80, 0x80, 0x80, 0x80, 0), err: ErrCompression},
		{what: "half an index", section: section(0xff), err: ErrCompression},
		{what: "indexed in the dynamic table", section: section(0x80), err: ErrCompression},
		{what: "indexed behind the base", section: section(0x10), err: ErrCompression},

		{what: "literal", section: section(0x50|1, 2, '/', 'p', 0x50|5, 0), want: ":path=/p|cookie="},
		{what: "literal, never indexed", section: section(0x70|14, 1, 'c'), want: "set-cookie=c"},
		{what: "literal with a long index", section: section(0x5f, 95-15, 1, 'u'), want: "user-agent=u"},
		{what: "literal with the code", section: append(section(0x50|1), huffman(0x80, 7, "/path")...), want: ":path=/path"},
		{what: "literal with an index too high", section: section(0x5f, 99-15, 0), err: ErrCompression},
		{what: "literal without its value", section: section(0x50 | 1), err: ErrCompression},
		{what: "literal with half a value", section: section(0x50|1, 2, '/'), err: ErrCompression},
		{what: "literal with a bad code", section: section(0x50|1, 0x80|1, 0), err: ErrCompression},
		{what: "literal with the end of the code", section: section(0x50|1, 0x80|4, 0xff, 0xff, 0xff, 0xff), err: ErrCompression},
		{what: "literal with a name in the dynamic table", section: section(0x40, 1, 'v'), err: ErrCompression},
		{what: "literal with a name behind the base", section: section(0, 1, 'v'), err: ErrCompression},
		{what: "never indexed with a name behind the base", section: section(0x08, 1, 'v'), err: ErrCompression},

		{what: "a name", section: section(0x20|1, 'x', 1, 'v', 0x20|1, 'y', 0), want: "x=v|y="},
		{what: "a name, never indexed", section: section(0x30|1, 'x', 1, 'v'), want: "x=v"},
		{what: "long", section: long, want: longName + "=" + longValue},
		{what: "a name with the code", section: append(append(section(), huffman(0x28, 3, "custom-name")...), huffman(0x80, 7, "value")...), want: "custom-name=value"},
		{what: "a known name", section: append(section(0x20|4), "host\x01a"...), want: "host=a"},
		{what: "half a length of a name", section: section(0x27), err: ErrCompression},
		{what: "half a name", section: section(0x20|2, 'x'), err: ErrCompression},
		{what: "a name without a value", section: section(0x20|1, 'x'), err: ErrCompression},
		{what: "a name with a bad code", section: section(0x28|1, 0, 0), err: ErrCompression},
		{what: "half a length of a value", section: section(0x20|1, 'x', 0x7f), err: ErrCompression},
		// These are errors of the message.
		{what: "upper case", section: section(0x20|1, 'X', 1, 'v'), want: "X=v"},
		{what: "an empty name", section: section(0x20, 1, 'v'), want: "=v"},
		{what: "a line in a value", section: section(0x20|1, 'x', 2, '\r', '\n'), want: "x=\r\n"},
	} {
		fields := Fields{text: []byte("of the section before"), list: make([]Field, 1), size: UsualListBytes}
		err := fields.DecodeQPACK(test.section, UsualListBytes)
		verify.Equal(t, err, test.err, "%s: the error", test.what)
		var got []string
		for _, f := range fieldsOf(&fields) {
			got = append(got, f.Name+"="+f.Value)
		}
		verify.Equal(t, strings.Join(got, "|"), test.want, "%s: the fields", test.what)
	}
}

// A field that HTTP/1.1 would understand differently is refused as in HTTP/2.
func TestMalformedFieldsInQPACK(t *testing.T) {
	head := []byte{0xc0 | 17, 0xc0 | 23, 0x50, 1, 'a', 0xc0 | 1} // GET https://a/
	for field, valid := range map[string]bool{
		"\x21x\x01v": true, "\x21X\x01v": false, "\x20\x01v": false, "\x22x \x01v": false, "\x21x\x02\r\n": false, "\x21x\x02 v": false,
		"\x22te\x08trailers": true, "\x22te\x04gzip": false, "\x27\x03connection\x05close": false, "\x25:path\x01/": false, "\xd1": false,
	} {
		var fields Fields
		verify.NoError(t, fields.DecodeQPACK(append(section(head...), field...), UsualListBytes))
		text, _, _, err := fields.AppendRequest(nil, true)
		verify.That(t, valid && err == nil || !valid && err == ErrMalformed, "%q: got %q, %v", field, text, err)
	}
}

// A list over the limit is refused, and what it has made large is given back.
func TestListInQPACKIsBounded(t *testing.T) {
	var fields Fields
	method := ListBytes(len(":methodGET"), 1)
	verify.NoError(t, fields.DecodeQPACK(section(0xc0|17, 0xc0|17), 2*method))
	verify.Equal(t, fields.DecodeQPACK(section(0xc0|17, 0xc0|17), 2*method-1), ErrListTooLong, "a byte less")
	for what, long := range map[string][]byte{
		"indexed": section(bytes.Repeat([]byte{0xff, 85 - 63}, 1000)...),
		"empty":   section(bytes.Repeat([]byte{0x20, 0}, 10_000)...),
		"value":   AppendQPACKField(section(), []byte("x"), make([]byte, 1<<20)),
		"name":    AppendQPACKField(section(), bytes.Repeat([]byte("n"), 1<<20), nil),
	} {
		verify.Equal(t, fields.DecodeQPACK(long, UsualListBytes), ErrListTooLong, "%s: the error", what)
		verify.That(t, fields.text == nil && len(fields.list) == 0 && cap(fields.list) <= UsualListBytes, "%s: %d bytes, %d of %d fields", what, cap(fields.text), len(fields.list), cap(fields.list))
		verify.Equal(t, fields.DecodeQPACK(append(long, 0x80), 1<<40), ErrCompression, "%s: the error behind it", what)
		verify.That(t, fields.text == nil && len(fields.list) == 0, "%s: %d bytes, %d fields", what, cap(fields.text), len(fields.list))
		fields = Fields{}
	}
}

// What others write is what the decoder reads.
func TestDecodesWhatOthersEncodeInQPACK(t *testing.T) {
	random := rand.New(rand.NewPCG(verify.Seed(t), 0))
	var block bytes.Buffer
	encoder := qpack.NewEncoder(&block)
	var fields Fields
	for range 500 {
		block.Reset()
		want := randomFields(random)
		for _, f := range want {
			encoder.WriteField(qpack.HeaderField{Name: f.Name, Value: f.Value})
		}
		if encoder.Close(); len(want) == 0 {
			continue // it writes no prefix
		}
		err, got := fields.DecodeQPACK(block.Bytes(), UsualListBytes), fieldsOf(&fields)
		verify.Require(t, err == nil && equalFields(got, want), "got %q, %v, want %q", got, err, want)
	}
}

// What the encoder writes is what others read, and what the decoder reads.
func TestOthersDecodeQPACK(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	var fields Fields
	for range 500 {
		_, list := randomResponse(random)
		for _, s := range qpackTable {
			if s.name[0] != ':' && random.IntN(10) == 0 {
				list = append(list, hpack.HeaderField{Name: s.name, Value: s.value})
			}
		}
		out, want := AppendQPACKPrefix(nil), []hpack.HeaderField(nil)
		for i, f := range list {
			start := len(out)
			if i%2 == 0 {
				out = AppendQPACKField(out, []byte(f.Name), []byte(f.Value))
			} else {
				out = AppendQPACKLine(out, []byte(f.Name+": "+f.Value+"\r\n"))
			}
			f.Name = strings.ToLower(f.Name)
			want = append(want, f)
			index, never := qpackIndex.find([]byte(f.Name)), false
			if first := out[start]; index > 0 {
				verify.Equal(t, first&^qpackLiteralNever, appendInteger(nil, qpackLiteral, 4, index)[0], "%s: the first byte without its bit N", f.Name)
				never = first&qpackLiteralNever != 0
			} else {
				verify.Equal(t, first&0xe0, qpackNamed, "%s: the first bits", f.Name)
				never = first&qpackNamedNever != 0
			}
			verify.Equal(t, never, isSecret(f.Name), "%s: the bit N", f.Name)
		}
		got, err := otherQPACK(out)
		verify.Require(t, err == nil && equalFields(got, want), "got %q, %v, want %q", got, err, want)
		verify.NoError(t, fields.DecodeQPACK(out, UsualListBytes))
		verify.Require(t, equalFields(fieldsOf(&fields), want), "decoded %q, want %q", fieldsOf(&fields), want)
	}
}

// Every status is encoded; those of the table, as an index.
func TestOthersDecodeStatusesInQPACK(t *testing.T) {
	indexed := make(map[string]bool)
	for _, s := range qpackTable {
		if s.name == ":status" {
			indexed[s.value] = true
		}
	}
	for status := 100; status < 1000; status++ {
		out := AppendQPACKStatus(section(), status)
		got, err := otherQPACK(out)
		want := fmt.Sprint(status)
		verify.Require(t, err == nil && equalFields(got, []hpack.HeaderField{{Name: ":status", Value: want}}), "%d: got %q, %v", status, got, err)
		verify.Equal(t, out[2]&0xc0 == qpackIndexed, indexed[want], "%d: indexed", status)
	}
}

func TestQPACKAllocatesNothing(t *testing.T) {
	in, out, fields := benchSection(), []byte(nil), new(Fields)
	allocations := testing.AllocsPerRun(100, func() {
		out = appendBenchResponse(out[:0])
		if err := fields.DecodeQPACK(in, UsualListBytes); err != nil {
			t.Error(err)
		}
	})
	verify.Equal(t, allocations, 0, "allocations")
}

// mayBeLonger reports whether b may have an integer of more bytes than are read.
func mayBeLonger(b []byte) bool {
	following := 0
	for _, c := range b {
		if following++; c < 0x80 {
			following = 0
		}
		if following == 4 {
			return true
		}
	}
	return false
}

// The decoder of quic-go agrees. It accepts longer integers and a negative base, and no other base.
func FuzzQPACK(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var block bytes.Buffer
		encoder := qpack.NewEncoder(&block)
		for _, field := range randomFields(random) {
			encoder.WriteField(qpack.HeaderField{Name: field.Name, Value: field.Value})
		}
		f.Add(block.Bytes())
	}
	f.Add(appendBenchResponse(section()))
	for _, b := range []string{"", "\x00", "\x00\x05\xd1", "\x00\x80\xd1", "\x01\x00\x80", "\x00\x00\x10", "\x00\x00\x08\x01v", "\x00\x00\x41\x00", "\x00\x00\x2f\xff\xff\xff\xff\xff\x00", "\x00\x00\xff\x80\x80\x80\x80\x00"} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, section []byte) {
		var fields Fields
		err := fields.DecodeQPACK(section, UsualListBytes)
		if err != nil {
			verify.Require(t, len(fields.list) == 0 && fields.text == nil, "%x: %q with %v", section, fieldsOf(&fields), err)
		}
		rest, ok := cutQPACKPrefix(section)
		if !ok {
			want, oracle := otherQPACK(section)
			verify.Require(t, err == ErrCompression, "%x: got %v", section, err)
			negative := len(section) > 1 && section[0] == 0 && section[1]&0x80 != 0
			verify.Require(t, oracle != nil || negative || mayBeLonger(section), "refused %x, other: %q", section, want)
			return
		}
		want, oracle := otherQPACK(append([]byte{0, 0}, rest...))
		switch err {
		case nil:
			verify.Require(t, oracle == nil, "accepted %x as %q, other: %v", section, fieldsOf(&fields), oracle)
			verify.Require(t, equalFields(fieldsOf(&fields), want), "%x: got %q, want %q", section, fieldsOf(&fields), want)
			requireNames(t, &fields)
			fields.AppendRequest(nil, true)
			fields.AppendTrailer(nil)
		case ErrListTooLong:
			size := 0
			for _, f := range want {
				size += int(f.Size())
			}
			verify.Require(t, oracle != nil || size > UsualListBytes, "refused %x, whose list has %d bytes", section, size)
		default:
			verify.Require(t, err == ErrCompression, "%x: got %v", section, err)
			verify.Require(t, oracle != nil || mayBeLonger(rest), "refused %x, other: %q", section, want)
		}
	})
}
