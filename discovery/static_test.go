package discovery

import (
	"strings"
	"testing"
)

func TestNewStatic(t *testing.T) {
	s, err := NewStatic("origin", []string{"127.0.0.1:19001", "[::1]:80 weight=0", "app.example.com:65535 weight=65535"})
	if err != nil {
		t.Fatal(err)
	}
	want := []Instance{
		{Service: "origin", ID: "127.0.0.1:19001", Address: "127.0.0.1", Port: 19001, Weight: 1},
		{Service: "origin", ID: "[::1]:80", Address: "::1", Port: 80},
		{Service: "origin", ID: "app.example.com:65535", Address: "app.example.com", Port: 65535, Weight: 65535},
	}
	if !equalSets(s.set, want) {
		t.Errorf("got %+v, want %+v", s.set, want)
	}
	if _, err := NewStatic("origin", nil); err != nil {
		t.Errorf("no peers: %v", err)
	}
}

func TestNewStaticListsEveryInvalidPeer(t *testing.T) {
	mistakes := []string{
		"", "10.0.0.1", ":80", "::1:80", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:http",
		"10.0.0.1:80 weight=-1", "10.0.0.1:80 weight=65536", "10.0.0.1:80 5", "10.0.0.1:80 weight=1 down",
	}
	_, err := NewStatic("origin", mistakes)
	if err == nil {
		t.Fatal("no error")
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != len(mistakes) {
		t.Errorf("%d lines for %d mistakes:\n%v", len(lines), len(mistakes), err)
	}
	_, err = NewStatic("origin", []string{"10.0.0.1:80", "10.0.0.1:80 weight=2"})
	if err == nil || !strings.Contains(err.Error(), `peers[1] "10.0.0.1:80 weight=2": listed twice`) {
		t.Errorf("a peer listed twice: %v", err)
	}
}
