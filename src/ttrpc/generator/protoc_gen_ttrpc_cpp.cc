// protoc-gen-ttrpc-cpp: for each .proto with services, a typed server interface and client stub.
//
//   protoc --plugin=protoc-gen-ttrpc-cpp=… --ttrpc-cpp_out=OUT --cpp_out=OUT x.proto
//
// writes x.ttrpc.h and x.ttrpc.cc beside protobuf's x.pb.h and x.pb.cc. `service Echo` becomes
// `EchoService` (src/ttrpc/service.h) and `EchoClient` (src/ttrpc/client.h) in the package's
// namespace. Streaming methods are refused: ttrpc calls here are unary.
#include <google/protobuf/compiler/code_generator.h>
#include <google/protobuf/compiler/cpp/names.h>
#include <google/protobuf/compiler/plugin.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/printer.h>
#include <google/protobuf/io/zero_copy_stream.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace {

using google::protobuf::Descriptor;
using google::protobuf::FileDescriptor;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;
using google::protobuf::SourceLocation;
using google::protobuf::compiler::cpp::QualifiedClassName;
using google::protobuf::compiler::cpp::StripProto;
using google::protobuf::io::Printer;
using Variables = std::map<std::string, std::string>;

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back().push_back(c);
    }
  }
  return parts;
}

std::string IncludeGuard(const FileDescriptor& file) {
  std::string guard = "TTRPC_";
  for (const char c : file.name()) {
    guard += std::isalnum(static_cast<unsigned char>(c)) != 0
                 ? static_cast<char>(std::toupper(static_cast<unsigned char>(c)))
                 : '_';
  }
  return guard + "_H_";
}

template <typename DescriptorType>
void PrintComments(const DescriptorType& descriptor, Printer* out) {
  SourceLocation location;
  if (!descriptor.GetSourceLocation(&location) || location.leading_comments.empty()) return;
  std::string comments = location.leading_comments;
  if (comments.back() == '\n') comments.pop_back();
  for (const std::string& line : Split(comments, '\n')) {
    out->Print("//$line$\n", "line", line);
  }
}

Variables ServiceVariables(const ServiceDescriptor& service) {
  return {{"name", service.name()}, {"full_name", service.full_name()}};
}

Variables MethodVariables(const MethodDescriptor& method) {
  Variables variables = ServiceVariables(*method.service());
  variables["method"] = method.name();
  variables["request"] = QualifiedClassName(method.input_type());
  variables["response"] = QualifiedClassName(method.output_type());
  return variables;
}

void OpenNamespace(const FileDescriptor& file, Printer* out) {
  if (file.package().empty()) return;
  std::string name;
  for (const std::string& part : Split(file.package(), '.')) {
    name += (name.empty() ? "" : "::") + part;
  }
  out->Print("namespace $name$ {\n\n", "name", name);
}

void CloseNamespace(const FileDescriptor& file, Printer* out) {
  if (!file.package().empty()) out->Print("}  // namespace\n\n");
}

void PrintServiceClass(const ServiceDescriptor& service, Printer* out) {
  const Variables variables = ServiceVariables(service);
  PrintComments(service, out);
  out->Print(variables,
             "//\n"
             "// Override what is implemented; the rest answers Unimplemented. Methods run on the\n"
             "// server's loop thread and must not block.\n"
             "class $name$Service : public ::bothy::ttrpc::Service {\n"
             " public:\n"
             "  std::string_view FullName() const final;\n"
             "  std::span<const Method> Methods() const final;\n");
  out->Indent();
  for (int i = 0; i < service.method_count(); ++i) {
    const MethodDescriptor& method = *service.method(i);
    out->Print("\n");
    PrintComments(method, out);
    out->Print(MethodVariables(method),
               "virtual void $method$(std::shared_ptr<::bothy::ttrpc::ServerCall> call,\n"
               "    $request$ request,\n"
               "    ::bothy::ttrpc::Reply<$response$> reply);\n");
  }
  out->Outdent();
  out->Print("};\n\n");
}

void PrintClientClass(const ServiceDescriptor& service, Printer* out) {
  const Variables variables = ServiceVariables(service);
  out->Print(
      variables,
      "// Calls $full_name$ over `client`, which must outlive this. Thread-safe. Each method\n"
      "// exists twice: blocking, and with a callback (see bothy::ttrpc::Client).\n"
      "class $name$Client {\n"
      " public:\n"
      "  explicit $name$Client(::bothy::ttrpc::Client& client) : client_(client) {}\n");
  out->Indent();
  for (int i = 0; i < service.method_count(); ++i) {
    const MethodDescriptor& method = *service.method(i);
    out->Print("\n");
    PrintComments(method, out);
    out->Print(MethodVariables(method),
               "absl::StatusOr<$response$> $method$(\n"
               "    const $request$& request,\n"
               "    const ::bothy::ttrpc::CallOptions& options = {});\n"
               "void $method$Async(\n"
               "    const $request$& request,\n"
               "    const ::bothy::ttrpc::CallOptions& options,\n"
               "    std::function<void(absl::StatusOr<$response$>)> done);\n");
  }
  out->Outdent();
  out->Print(
      "\n"
      " private:\n"
      "  ::bothy::ttrpc::Client& client_;\n"
      "};\n\n");
}

void PrintHeader(const FileDescriptor& file, Printer* out) {
  out->Print(
      "// Generated by protoc-gen-ttrpc-cpp from $file$; not for editing.\n"
      "#ifndef $guard$\n"
      "#define $guard$\n\n"
      "#include <functional>\n"
      "#include <memory>\n"
      "#include <span>\n"
      "#include <string_view>\n\n"
      "#include \"absl/status/statusor.h\"\n"
      "#include \"ttrpc/client.h\"\n"
      "#include \"ttrpc/service.h\"\n\n"
      "#include \"$base$.pb.h\"\n",
      "file", file.name(), "guard", IncludeGuard(file), "base", StripProto(file.name()));
  // Messages that methods use may come from imports.
  std::set<std::string> imports;
  for (int i = 0; i < file.service_count(); ++i) {
    const ServiceDescriptor& service = *file.service(i);
    for (int j = 0; j < service.method_count(); ++j) {
      for (const Descriptor* message :
           {service.method(j)->input_type(), service.method(j)->output_type()}) {
        if (message->file() != &file) imports.insert(StripProto(message->file()->name()));
      }
    }
  }
  for (const std::string& import : imports) {
    out->Print("#include \"$import$.pb.h\"\n", "import", import);
  }
  out->Print("\n");
  OpenNamespace(file, out);
  for (int i = 0; i < file.service_count(); ++i) {
    PrintServiceClass(*file.service(i), out);
    PrintClientClass(*file.service(i), out);
  }
  CloseNamespace(file, out);
  out->Print("#endif\n");
}

void PrintServiceDefinitions(const ServiceDescriptor& service, Printer* out) {
  const Variables variables = ServiceVariables(service);
  out->Print(variables,
             "std::string_view $name$Service::FullName() const { return \"$full_name$\"; }\n\n"
             "std::span<const ::bothy::ttrpc::Service::Method> $name$Service::Methods() const {\n");
  if (service.method_count() == 0) {
    out->Print("  return {};\n}\n\n");
  } else {
    out->Print("  static constexpr Method kMethods[] = {\n");
    for (int i = 0; i < service.method_count(); ++i) {
      out->Print(MethodVariables(*service.method(i)),
                 "    {\"$method$\",\n"
                 "     [](::bothy::ttrpc::Service& service,\n"
                 "        std::shared_ptr<::bothy::ttrpc::ServerCall> call,\n"
                 "        std::string_view payload) {\n"
                 "       ::bothy::ttrpc::Dispatch(static_cast<$name$Service&>(service),\n"
                 "                                &$name$Service::$method$,\n"
                 "                                std::move(call), payload);\n"
                 "     }},\n");
    }
    out->Print("  };\n  return kMethods;\n}\n\n");
  }
  for (int i = 0; i < service.method_count(); ++i) {
    out->Print(MethodVariables(*service.method(i)),
               "void $name$Service::$method$(std::shared_ptr<::bothy::ttrpc::ServerCall>,\n"
               "                             $request$,\n"
               "                             ::bothy::ttrpc::Reply<$response$> reply) {\n"
               "  reply(absl::UnimplementedError(\"method $method$\"));\n"
               "}\n\n");
  }
}

void PrintClientDefinitions(const ServiceDescriptor& service, Printer* out) {
  for (int i = 0; i < service.method_count(); ++i) {
    out->Print(MethodVariables(*service.method(i)),
               "absl::StatusOr<$response$> $name$Client::$method$(\n"
               "    const $request$& request,\n"
               "    const ::bothy::ttrpc::CallOptions& options) {\n"
               "  return ::bothy::ttrpc::Call<$response$>(\n"
               "      client_, \"$full_name$\", \"$method$\", request, options);\n"
               "}\n\n"
               "void $name$Client::$method$Async(\n"
               "    const $request$& request,\n"
               "    const ::bothy::ttrpc::CallOptions& options,\n"
               "    std::function<void(absl::StatusOr<$response$>)> done) {\n"
               "  ::bothy::ttrpc::CallAsync<$response$>(\n"
               "      client_, \"$full_name$\", \"$method$\", request, options, std::move(done));\n"
               "}\n\n");
  }
}

void PrintSource(const FileDescriptor& file, Printer* out) {
  out->Print(
      "// Generated by protoc-gen-ttrpc-cpp from $file$; not for editing.\n"
      "#include \"$base$.ttrpc.h\"\n\n"
      "#include <utility>\n\n"
      "#include \"absl/status/status.h\"\n\n",
      "file", file.name(), "base", StripProto(file.name()));
  OpenNamespace(file, out);
  for (int i = 0; i < file.service_count(); ++i) {
    PrintServiceDefinitions(*file.service(i), out);
    PrintClientDefinitions(*file.service(i), out);
  }
  CloseNamespace(file, out);
}

class TtrpcGenerator : public google::protobuf::compiler::CodeGenerator {
 public:
  uint64_t GetSupportedFeatures() const override { return FEATURE_PROTO3_OPTIONAL; }

  bool Generate(const FileDescriptor* file, const std::string& /*parameter*/,
                google::protobuf::compiler::GeneratorContext* context,
                std::string* error) const override {
    for (int i = 0; i < file->service_count(); ++i) {
      for (int j = 0; j < file->service(i)->method_count(); ++j) {
        const MethodDescriptor& method = *file->service(i)->method(j);
        if (method.client_streaming() || method.server_streaming()) {
          *error = method.full_name() + ": streaming methods aren't supported";
          return false;
        }
      }
    }
    const std::string base = StripProto(file->name());
    {
      const std::unique_ptr<google::protobuf::io::ZeroCopyOutputStream> stream(
          context->Open(base + ".ttrpc.h"));
      Printer out(stream.get(), '$');
      PrintHeader(*file, &out);
    }
    const std::unique_ptr<google::protobuf::io::ZeroCopyOutputStream> stream(
        context->Open(base + ".ttrpc.cc"));
    Printer out(stream.get(), '$');
    PrintSource(*file, &out);
    return true;
  }
};

}  // namespace

int main(int argc, char** argv) {
  const TtrpcGenerator generator;
  return google::protobuf::compiler::PluginMain(argc, argv, &generator);
}
