package markdown

import (
	"os"
	"path/filepath"
	"testing"
)

var section = WrittenBy("test")

func write(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "document.md")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOnlyTheSectionIsReplaced(t *testing.T) {
	path := write(t, "# Before\n"+section.begin+"old\n"+section.end+"after\n")
	if err := section.Find(path); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := section.Replace(path, "new\n"); err != nil {
			t.Fatal(err)
		}
		if got, want := read(t, path), "# Before\n"+section.begin+"new\n"+section.end+"after\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestDocumentWithoutTheSectionIsLeftAlone(t *testing.T) {
	other := WrittenBy("other")
	for _, text := range []string{"", section.begin, section.end + section.begin, other.begin + other.end} {
		path := write(t, text)
		if section.Find(path) == nil || section.Replace(path, "new\n") == nil {
			t.Errorf("no error for %q", text)
		}
		if got := read(t, path); got != text {
			t.Errorf("got %q, want %q", got, text)
		}
	}
}

func TestTableIsAligned(t *testing.T) {
	got := Table([][]string{{"proxy", "µs"}, {"sluice", "10"}, {"a", "9.5"}})
	want := "| proxy  |  µs |\n|--------|----:|\n| sluice |  10 |\n| a      | 9.5 |\n"
	if got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}

func TestTablesInDocumentsAreCompact(t *testing.T) {
	path := write(t, section.begin+section.end)
	if err := section.Replace(path, "a  b\n\n"+Table([][]string{{"proxy", "µs each"}, {"sluice", "10"}, {"another one", "9.5"}})); err != nil {
		t.Fatal(err)
	}
	want := section.begin + "a  b\n\n| proxy | µs each |\n|---|---:|\n| sluice | 10 |\n| another one | 9.5 |\n" + section.end
	if got := read(t, path); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}
