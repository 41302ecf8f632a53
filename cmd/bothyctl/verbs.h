// The verbs of bothyctl, one function for each file of them.
#pragma once

namespace bothy::bothyctl {

class CommandLine;

void AddRunVerb(CommandLine& commands);
void AddCreateVerb(CommandLine& commands);
void AddLifecycleVerbs(CommandLine& commands);  // teardown, pause, resume, wait, quit
void AddInspectVerb(CommandLine& commands);
void AddTopVerb(CommandLine& commands);
void AddCapabilitiesVerb(CommandLine& commands);
void AddPropertiesVerb(CommandLine& commands);
void AddModifyVerb(CommandLine& commands);
void AddSocketVerb(CommandLine& commands);
void AddConnectVerb(CommandLine& commands);
void AddForwardVerb(CommandLine& commands);
void AddDiskVerbs(CommandLine& commands);        // disk create, info, check, repair, …
void AddCompletionVerbs(CommandLine& commands);  // completion bash, zsh, fish

}  // namespace bothy::bothyctl
