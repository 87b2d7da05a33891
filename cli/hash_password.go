package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/term"
)

func newHashPassword() *cobra.Command {
	return &cobra.Command{
		Use:   "hash-password USER",
		Short: "Print the line of a user for basic_auth",
		Long: "Read a password, from a terminal twice and without showing it, else the first line of\n" +
			"standard input. Print the line of the user for the file basic_auth.users_file.\n\n" +
			"  sluice hash-password ann >> /etc/sluice/users",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" || args[0][0] == '#' || strings.ContainsAny(args[0], ": \t\n\r") {
				return &usageError{errors.New("name one user, without a colon, blanks or # in front")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := readPassword(cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return fmt.Errorf("read the password: %w", err)
			}
			hash, err := bcrypt.GenerateFromPassword(password, bcrypt.DefaultCost)
			if errors.Is(err, bcrypt.ErrPasswordTooLong) {
				err = errors.New("the password is longer than 72 bytes, of which bcrypt would not see the rest")
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s:%s\n", args[0], hash)
			return err
		},
	}
}

func readPassword(in io.Reader, prompts io.Writer) ([]byte, error) {
	if file, ok := in.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return askPassword(int(file.Fd()), prompts)
	}
	line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadBytes('\n')
	if err != nil && err != io.EOF {
		return nil, err
	}
	return notEmpty(bytes.TrimRight(line, "\r\n"))
}

// askPassword reads a password twice from a terminal.
func askPassword(terminal int, prompts io.Writer) ([]byte, error) {
	var both [2][]byte
	for n, prompt := range []string{"Password: ", "Again: "} {
		fmt.Fprint(prompts, prompt)
		var err error
		both[n], err = term.ReadPassword(terminal)
		fmt.Fprintln(prompts)
		if err != nil {
			return nil, err
		}
	}
	if !bytes.Equal(both[0], both[1]) {
		return nil, errors.New("the two are not the same")
	}
	return notEmpty(both[0])
}

func notEmpty(password []byte) ([]byte, error) {
	if len(password) == 0 {
		return nil, errors.New("it is empty")
	}
	return password, nil
}
