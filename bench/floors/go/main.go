// grpc-go's echo server for the bench `serve`: what a server costs in the language that gRPC's users compare with.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type echo struct{}

var description = grpc.ServiceDesc{
	ServiceName: "meshwright.bench.Echo",
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Unary", Handler: unary}},
	Streams:     []grpc.StreamDesc{{StreamName: "Stream", Handler: stream, ServerStreams: true}},
}

func unary(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	request := new(wrapperspb.StringValue)
	if err := decode(request); err != nil {
		return nil, err
	}
	return wrapperspb.String(request.GetValue()), nil
}

// The request comes back as often as the command line says.
func stream(_ any, sending grpc.ServerStream) error {
	request := new(wrapperspb.StringValue)
	if err := sending.RecvMsg(request); err != nil {
		return err
	}
	for range *count {
		if err := sending.SendMsg(wrapperspb.String(request.GetValue())); err != nil {
			return err
		}
	}
	return nil
}

var count = flag.Int("messages", 1000, "messages of a stream")

func main() {
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	server := grpc.NewServer()
	server.RegisterService(&description, echo{})
	log.Fatal(server.Serve(listener))
}
