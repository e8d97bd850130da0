// Swaps file descriptors beside calls on a Unix socket the way NSM's programs do, by grpcfd: as a client, or as the
// server. A request names the inode of the file that comes with it; the answer names the inode of the file that comes
// back, and says what stood in the first.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/edwarnicke/grpcfd"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const method = "/meshwright.test.Exchange/Swap"

func security(folder, name string) credentials.TransportCredentials {
	if folder == "" {
		return grpcfd.TransportCredentials(insecure.NewCredentials())
	}
	certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"))
	check(err)
	bundle, err := os.ReadFile(filepath.Join(folder, "ca.pem"))
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(bundle)
	return grpcfd.TransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{certificate},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ServerName:   name,
	}))
}

func main() {
	serve := flag.Bool("serve", false, "be the server")
	socket := flag.String("socket", "", "path of the Unix socket")
	folder := flag.String("tls", "", "folder with cert.pem, key.pem and ca.pem; plain text without")
	name := flag.String("name", "", "the server's name in its certificate")
	file := flag.String("file", "", "the file to send")
	rounds := flag.Int("rounds", 1, "swaps, one after the other")
	workers := flag.Int("workers", 1, "so many at a time")
	flag.Parse()
	if *serve {
		server := grpc.NewServer(grpc.Creds(security(*folder, "")))
		server.RegisterService(&description, &exchange{file: *file})
		listener, err := net.Listen("unix", *socket)
		check(err)
		fmt.Println("ready")
		log.Fatal(server.Serve(listener))
	}
	connection, err := grpc.NewClient("unix:"+*socket, grpc.WithTransportCredentials(security(*folder, *name)))
	check(err)
	var group sync.WaitGroup
	for range *workers {
		group.Go(func() {
			for range *rounds {
				swap(connection, *file)
			}
		})
	}
	group.Wait()
	fmt.Println("swapped", *rounds**workers)
}

func swap(connection *grpc.ClientConn, file string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	beside := grpcfd.PerRPCCredentials(nil)
	transceiver, _ := grpcfd.FromPerRPCCredentials(beside)
	failed := transceiver.SendFilename(file)
	name, err := grpcfd.FilenameToURL(file)
	check(err)
	answer := new(wrapperspb.StringValue)
	check(connection.Invoke(ctx, method, wrapperspb.String(name.String()), answer, grpc.PerRPCCredentials(beside)))
	for err := range failed {
		check(err)
	}
	sentText, err := os.ReadFile(file)
	check(err)
	url, text, _ := strings.Cut(answer.GetValue(), " ")
	if text != string(sentText) {
		log.Fatalf("the server read %q, not %q", text, sentText)
	}
	files, err := transceiver.RecvFileByURL(url)
	check(err)
	if text := read(ctx, files); text != "from the server" {
		log.Fatalf("the server's file says %q", text)
	}
}

// The descriptors are of O_PATH: they are opened anew to be read, as NSM's are by their path in /proc.
func read(ctx context.Context, files <-chan *os.File) string {
	select {
	case file, open := <-files:
		if !open {
			log.Fatal("the connection ended before the descriptor came")
		}
		defer func() { _ = file.Close() }()
		opened, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
		check(err)
		defer func() { _ = opened.Close() }()
		text, err := io.ReadAll(opened)
		check(err)
		return string(text)
	case <-ctx.Done():
		log.Fatal("no descriptor came")
	}
	return ""
}

type exchange struct{ file string }

var description = grpc.ServiceDesc{
	ServiceName: "meshwright.test.Exchange",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Swap",
		Handler: func(service any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			request := new(wrapperspb.StringValue)
			if err := decode(request); err != nil {
				return nil, err
			}
			return service.(*exchange).swap(ctx, request)
		},
	}},
}

func (e *exchange) swap(ctx context.Context, request *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	transceiver, found := grpcfd.FromContext(ctx)
	if !found {
		return nil, fmt.Errorf("the connection carries no descriptors")
	}
	files, err := transceiver.RecvFileByURL(request.GetValue())
	if err != nil {
		return nil, err
	}
	text := read(ctx, files)
	name, err := grpcfd.FilenameToURL(e.file)
	if err != nil {
		return nil, err
	}
	_ = transceiver.SendFilename(e.file)
	return wrapperspb.String(name.String() + " " + text), nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
